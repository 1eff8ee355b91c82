"""The only package that imports cogames, mettagrid, pufferlib or torch."""
