BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE leases (
	name VARCHAR(80) NOT NULL, 
	holder VARCHAR(80) NOT NULL, 
	fence BIGINT NOT NULL, 
	beat BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE packages (
	number INTEGER NOT NULL, 
	id VARCHAR(40) NOT NULL, 
	description TEXT NOT NULL, 
	creator VARCHAR(200) NOT NULL, 
	create_time DATETIME NOT NULL, 
	revision BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
CREATE TABLE requests (
	method VARCHAR(80) NOT NULL, 
	request_id VARCHAR(120) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	resource VARCHAR(200) NOT NULL, 
	create_time DATETIME NOT NULL, 
	PRIMARY KEY (method, request_id)
);
CREATE TABLE revision (
	id INTEGER NOT NULL, 
	value BIGINT, 
	PRIMARY KEY (id)
);
INSERT INTO "revision" VALUES(1,0);
CREATE TABLE tombstones (
	kind VARCHAR(40) NOT NULL, 
	id VARCHAR(120) NOT NULL, 
	revision BIGINT NOT NULL, 
	PRIMARY KEY (kind, id)
);
CREATE TABLE versions (
	number INTEGER NOT NULL, 
	package VARCHAR(40) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	message BLOB NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (package, version), 
	FOREIGN KEY(package) REFERENCES packages (id)
);
CREATE INDEX ix_tombstones_revision ON tombstones (revision);
CREATE INDEX ix_requests_create_time ON requests (create_time);
CREATE INDEX ix_packages_revision ON packages (revision);
COMMIT;
