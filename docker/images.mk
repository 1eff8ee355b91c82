# Images: `make images IMAGE_PREFIX=registry.example/daf IMAGE_TAG=0.1.0 PUSH=1`; a few of them with IMAGES="training scheduler".

DOCKER ?= docker
DOCKER_BUILD_FLAGS ?=
IMAGE_PREFIX ?=
IMAGE_TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE_BASE ?= python:3.12-slim-bookworm
IMAGE_SERVICES := scheduler training evaluation statistics deployment
IMAGES ?= $(IMAGE_SERVICES) gateway runner standalone
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)$(if $(shell git status --porcelain 2>/dev/null),-dirty)
image = $(IMAGE_PREFIX:%=%/)daf-$(1):$(IMAGE_TAG)
build_image = DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD_FLAGS) --build-arg BASE=$(IMAGE_BASE) \
    --build-arg VERSION=$(IMAGE_TAG) --build-arg REVISION=$(REVISION) --tag $(call image,$(1)) --file docker/$(2).Dockerfile $(3) .

.PHONY: images image-sizes test-images $(IMAGES:%=image-%)

images: $(IMAGES:%=image-%) ## Build the images of all services and of workers, and push them with PUSH=1
	@$(PYTHON) scripts/image_sizes.py --base $(IMAGE_BASE) $(foreach name,$(IMAGES),$(call image,$(name)))

image-sizes: ## Print how large the images are
	@$(PYTHON) scripts/image_sizes.py --base $(IMAGE_BASE) $(foreach name,$(IMAGES),$(call image,$(name)))

test-images: setup images ## Build the images and test them
	DAF_TEST_IMAGES="$(foreach name,$(IMAGES),$(call image,$(name)))" $(BIN)/pytest -rs tests/images

$(IMAGE_SERVICES:%=image-%): image-%:
	$(call build_image,$*,service,--build-arg SERVICE=$*)
	$(if $(PUSH),$(DOCKER) push $(call image,$*))

image-gateway: image-%:
	$(call build_image,$*,$*)
	$(if $(PUSH),$(DOCKER) push $(call image,$*))

image-runner image-standalone: image-%:
	$(call build_image,$*,runner,--target $*)
	$(if $(PUSH),$(DOCKER) push $(call image,$*))
