-- What the product's own schemas look like: tenants, sites, devices, configuration, alarms, audit, tokens.
SET sql_mode='STRICT_TRANS_TABLES', time_zone='+00:00', timestamp=1600010000, group_concat_max_len=8388608;
CREATE DATABASE cso_topology CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE DATABASE cso_config CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE DATABASE cso_audit CHARACTER SET latin1;
CREATE DATABASE cso_keystone CHARACTER SET utf8mb3;
CREATE DATABASE cso_images;
CREATE DATABASE cso_metrics;
CREATE DATABASE cso_documents CHARACTER SET utf8mb4;
CREATE DATABASE cso_ledger COMMENT 'balances of both accounts tables add up to a constant';

USE cso_topology;
CREATE TABLE tenant (id CHAR(36) CHARACTER SET ascii PRIMARY KEY, name VARCHAR(100) NOT NULL, plan ENUM('basic','secure','hybrid') NOT NULL DEFAULT 'basic', created DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), UNIQUE KEY (name)) COMMENT 'customers';
INSERT INTO tenant SELECT INSERT(INSERT(INSERT(INSERT(MD5(CONCAT('{SEED}t',seq)),9,0,'-'),14,0,'-'),19,0,'-'),24,0,'-'), CONCAT('Tenant ',seq,' ',LEFT(MD5(CONCAT('{SEED}n',seq)),6)), 1+seq%3, '2020-01-01' + INTERVAL seq*7919 SECOND FROM seq_1_to_200;
CREATE TABLE site (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, tenant_id CHAR(36) CHARACTER SET ascii NOT NULL, name VARCHAR(80), location POINT NOT NULL, SPATIAL KEY (location), KEY by_tenant (tenant_id, name), CONSTRAINT site_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (id) ON DELETE CASCADE);
INSERT INTO site SELECT n+1, id, CONCAT('Site ',n,IF(n%7=0,' Zürich',' 東京')), POINT(MOD(CONV(LEFT(MD5(CONCAT('{SEED}x',n)),8),16,10),3600000)/10000-180, MOD(CONV(LEFT(MD5(CONCAT('{SEED}y',n)),8),16,10),1800000)/10000-90) FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id, s.seq)-1 n FROM tenant, seq_0_to_2 s) x;
CREATE TABLE device (id BIGINT AUTO_INCREMENT PRIMARY KEY, site_id INT UNSIGNED, serial VARCHAR(32) CHARACTER SET latin1 COLLATE latin1_general_cs NOT NULL, model VARCHAR(40), mgmt INET6, cpu FLOAT, temperature DOUBLE, up TIMESTAMP NULL, flags BIT(12) NOT NULL DEFAULT 0, tags SET('wan','lan','lte','fw') , UNIQUE KEY (serial), FOREIGN KEY (site_id) REFERENCES site (id)) AUTO_INCREMENT=100000;
INSERT INTO device SELECT seq, 1+seq%600, CONCAT('SN',UPPER(LEFT(MD5(CONCAT('{SEED}s',seq)),14))), ELT(1+seq%4,'SRX345','NFX250','vSRX','EX4300'), CONCAT('2001:db8::',HEX(seq)), CONV(LEFT(MD5(CONCAT('{SEED}c',seq)),6),16,10)/167772.16, CONV(LEFT(MD5(CONCAT('{SEED}d',seq)),12),16,10)/3e12, IF(seq%11=0,NULL,FROM_UNIXTIME(1500000000+seq*37)), seq%4096, seq%16 FROM seq_1_to_3000;
CREATE TABLE link (a BIGINT, b BIGINT, kind TINYINT, mbit DECIMAL(12,3), PRIMARY KEY (a,b,kind), FOREIGN KEY (a) REFERENCES device (id), FOREIGN KEY (b) REFERENCES device (id));
INSERT INTO link SELECT 1+seq%3000, 1+(seq*31+seq DIV 3000)%3000, seq%3, seq*1.125 FROM seq_1_to_6000;
CREATE VIEW device_per_tenant AS SELECT t.name, COUNT(*) AS devices FROM tenant t JOIN site s ON s.tenant_id=t.id JOIN device d ON d.site_id=s.id GROUP BY t.name;

USE cso_config;
CREATE TABLE device_config (device_id BIGINT, revision INT, body JSON NOT NULL, checksum BINARY(20), PRIMARY KEY (device_id, revision DESC), FOREIGN KEY (device_id) REFERENCES cso_topology.device (id) ON DELETE CASCADE) WITH SYSTEM VERSIONING;
INSERT INTO device_config SELECT 1+seq%1000, 1+seq DIV 1000, CONCAT('{"system": {"host-name": "dev-',seq,'",  "note":"☁"}, "interfaces": [',(SELECT GROUP_CONCAT(CONCAT('{"name":"ge-0/0/',i.seq,'","mac" : "',LEFT(MD5(CONCAT('{SEED}',o.seq,i.seq)),12),'"}') ORDER BY i.seq SEPARATOR ', ') FROM seq_1_to_24 i),']}'), UNHEX(SHA1(CONCAT('{SEED}',seq))) FROM seq_0_to_1499 o;
SET timestamp=1600020000.654321;
UPDATE device_config SET body=JSON_SET(body,'$.changed',device_id) WHERE device_id%10=0;
DELETE FROM device_config WHERE device_id%97=0;
CREATE SEQUENCE revision_seq START WITH 5000 CACHE 100;
SELECT COUNT(NEXTVAL(revision_seq)) FROM seq_1_to_123;

USE cso_audit;
CREATE TABLE event_log (id BIGINT NOT NULL AUTO_INCREMENT, at DATETIME(3) NOT NULL, actor VARCHAR(40), action VARCHAR(60), detail TEXT, KEY (id), KEY by_time (at, actor)) PARTITION BY RANGE (TO_DAYS(at)) (PARTITION p2019 VALUES LESS THAN (TO_DAYS('2020-01-01')), PARTITION p2020 VALUES LESS THAN (TO_DAYS('2021-01-01')), PARTITION later VALUES LESS THAN MAXVALUE);
INSERT INTO event_log SELECT seq, '2019-06-01' + INTERVAL seq*4001 SECOND, CONCAT('user',seq%97), ELT(1+seq%5,'login','create site','delete policy','deploy','logout'), CONCAT('from 10.',seq%256,'.0.1 token ',SHA1(CONCAT('{SEED}a',seq))) FROM seq_1_to_20000;
CREATE TABLE alarm (device_id BIGINT, severity TINYINT UNSIGNED, text VARCHAR(200), raised INT UNSIGNED, cleared INT UNSIGNED) ENGINE=Aria;
INSERT INTO alarm SELECT 1+seq%3000, seq%6, CONCAT('link down ',seq%50), 1500000000+seq DIV 2, IF(seq%3,1500000100+seq,NULL) FROM seq_1_to_5000;
CREATE PROCEDURE purge_before(IN t DATETIME) DELETE FROM event_log WHERE at < t;
CREATE EVENT nightly_purge ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 03:00:00' ON COMPLETION PRESERVE DO CALL cso_audit.purge_before(NOW() - INTERVAL 90 DAY);

USE cso_keystone;
CREATE TABLE user (id UUID PRIMARY KEY, name VARCHAR(64) COLLATE utf8mb3_bin, extra TEXT, enabled BOOLEAN, UNIQUE (name));
INSERT INTO user SELECT CAST(INSERT(INSERT(MD5(CONCAT('{SEED}u',seq)),13,1,'4'),17,1,'8') AS UUID), CONCAT('üser-',seq), CONCAT('{"email": "u',seq,'@example.net"}'), seq%13<>0 FROM seq_1_to_1000;
CREATE TABLE assignment (user_id UUID, project_id UUID, role VARCHAR(20), PRIMARY KEY (user_id, project_id, role), FOREIGN KEY (user_id) REFERENCES user (id) ON DELETE CASCADE);
INSERT INTO assignment SELECT u.id, CAST(INSERT(INSERT(MD5(CONCAT('p',s.seq)),13,1,'4'),17,1,'8') AS UUID), ELT(s.seq,'member','admin','_member_') FROM user u, seq_1_to_3 s WHERE CRC32(CONCAT(u.id,s.seq))%2=0;
CREATE TABLE token (id VARBINARY(64) PRIMARY KEY, payload BLOB, expires DATETIME NOT NULL, KEY (expires));
INSERT INTO token SELECT UNHEX(SHA2(CONCAT('{SEED}k',seq),256)), UNHEX(REPEAT(SHA2(CONCAT('{SEED}v',seq),512),3)), '2030-01-01' + INTERVAL seq MINUTE FROM seq_1_to_4000;

USE cso_images;
CREATE TABLE image (id INT PRIMARY KEY, name VARCHAR(50), content LONGBLOB);
INSERT INTO image VALUES (1,'empty',''),(2,'null',NULL),(3,'nul bytes',REPEAT(X'00',100000)),(4,'backslashes',REPEAT('\\\n\t''"',50000));
INSERT INTO image SELECT 10+o.seq, CONCAT('firmware ',o.seq), (SELECT GROUP_CONCAT(UNHEX(SHA2(CONCAT('{SEED}',o.seq,'/',i.seq),512)) ORDER BY i.seq SEPARATOR '') FROM seq_1_to_24000 i WHERE i.seq <= 12000*o.seq) FROM seq_1_to_2 o;

CREATE TABLE cso_metrics.sample (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, device INT NOT NULL, at TIMESTAMP(3) NOT NULL DEFAULT '2000-01-01', value FLOAT, total DOUBLE, series CHAR(120) NOT NULL, pad VARCHAR(60) NOT NULL, KEY by_device (device));
CREATE TABLE cso_documents.document (id INT UNSIGNED PRIMARY KEY, title VARCHAR(100), body MEDIUMTEXT, meta JSON, raw BLOB);

USE cso_ledger;
CREATE TABLE account_a (id INT PRIMARY KEY, balance BIGINT NOT NULL);
CREATE TABLE account_b (id INT PRIMARY KEY, balance BIGINT NOT NULL);
INSERT INTO account_a SELECT seq, 1000 FROM seq_1_to_100;
INSERT INTO account_b SELECT seq, 1000 FROM seq_1_to_100;
