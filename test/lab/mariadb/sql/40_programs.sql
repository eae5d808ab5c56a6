-- Views, routines, packages, aggregates, triggers and events: bodies, modes, character sets, definers.
SET sql_mode='', time_zone='+00:00', timestamp=1600001000;
USE torture;
CREATE TABLE g_base (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(40), c DECIMAL(10,2));
INSERT INTO g_base VALUES (1,1,'one',1.10),(2,2,'two',2.20),(3,3,'drei ü',3.30);
CREATE TABLE g_audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(60), at DATETIME DEFAULT NULL);

DELIMITER //
CREATE DEFINER=root@localhost FUNCTION f_plain(x INT) RETURNS INT DETERMINISTIC NO SQL COMMENT 'it''s a "function"' RETURN x*2//
CREATE DEFINER=`gone`@`nowhere` FUNCTION f_ghost(s VARCHAR(20) CHARACTER SET latin1) RETURNS VARCHAR(20) CHARACTER SET sjis READS SQL DATA SQL SECURITY DEFINER RETURN (SELECT b FROM g_base WHERE b=s LIMIT 1)//
CREATE FUNCTION `f odd``name`(`p``1` INT) RETURNS TEXT MODIFIES SQL DATA SQL SECURITY INVOKER BEGIN /* keep me */ RETURN CONCAT('x', `p``1`); -- and me
END//
CREATE PROCEDURE p_plain(IN a INT, OUT b INT, INOUT c VARCHAR(20)) COMMENT 'tab	and\nnewline'
BEGIN
  DECLARE EXIT HANDLER FOR SQLEXCEPTION ROLLBACK;
  SET b = a + 1, c = CONCAT(c, '\\', '''', '"', '☃');
END//
SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'//
CREATE PROCEDURE "p_ansi"() BEGIN SELECT 'a\' || "b" FROM "g_base"; END//
CREATE FUNCTION f_table_type() RETURNS TEXT RETURN 'x' || 'y'//
SET sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE'//
CREATE PROCEDURE p_strict() UPDATE g_base SET a=1 WHERE id='1'//
SET sql_mode=''//
SET NAMES latin1 COLLATE latin1_german1_ci//
CREATE PROCEDURE p_latin1() SELECT 'plain', _latin1 X'E4'//
SET NAMES sjis//
CREATE PROCEDURE p_sjis() SELECT 'sjis session'//
SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci//
CREATE PROCEDURE p_unicode(IN `名` INT) SELECT `名`, '😀'//
CREATE AGGREGATE FUNCTION f_aggregate(x INT) RETURNS INT
BEGIN
  DECLARE total INT DEFAULT 0;
  DECLARE CONTINUE HANDLER FOR NOT FOUND RETURN total;
  LOOP FETCH GROUP NEXT ROW; SET total = total + x*x; END LOOP;
END//
CREATE PROCEDURE p_calls_missing() CALL not_there_at_all(1)//
CREATE FUNCTION `odd``tick`.f_other() RETURNS INT RETURN 1//
SET sql_mode=ORACLE//
CREATE PACKAGE pkg_accounts AS
  FUNCTION balance(id INT) RETURN INT;
  PROCEDURE deposit(id INT, amount INT);
END//
CREATE PACKAGE BODY pkg_accounts AS
  counter INT := 0;
  FUNCTION hidden RETURN INT AS BEGIN RETURN 42; END;
  FUNCTION balance(id INT) RETURN INT AS BEGIN RETURN id + hidden(); END;
  PROCEDURE deposit(id INT, amount INT) AS BEGIN counter := counter + amount; END;
BEGIN
  counter := 1;
END//
CREATE PACKAGE pkg_spec_only COMMENT 'no body' AS PROCEDURE later; END//
CREATE OR REPLACE PROCEDURE p_oracle(a IN INT, b OUT INT) AS c INT := 1; BEGIN b := a || c; END//
SET sql_mode=''//
DELIMITER ;

-- views: on views, across schemas, with check option, each algorithm and security, odd modes, broken ones
CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW w_a AS SELECT id, a, b FROM g_base WHERE a > 0 WITH LOCAL CHECK OPTION;
CREATE ALGORITHM=TEMPTABLE SQL SECURITY DEFINER VIEW w_b AS SELECT b, COUNT(*) AS n, SUM(f_plain(a)) AS `twi``ce` FROM w_a GROUP BY b;
CREATE VIEW a_view_before_its_base AS SELECT * FROM w_b;
CREATE DEFINER=`gone`@`%` VIEW w_ghost AS SELECT id FROM g_base;
CREATE VIEW w_check AS SELECT * FROM w_a WHERE id < 100 WITH CASCADED CHECK OPTION;
CREATE VIEW torture_refs.w_cross AS SELECT x.id, y.`i``d` FROM torture.w_check x LEFT JOIN `odd``tick`.`ta``ble` y ON x.id=y.`i``d`;
CREATE VIEW `w odd``name` (`c``1`, `c 2`, `☃`) AS SELECT 1, 'it''s', _utf8mb4 '😀';
CREATE VIEW w_history AS SELECT id, v FROM h_implicit FOR SYSTEM_TIME ALL;
CREATE VIEW w_recursive AS WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n+1 FROM r WHERE n < 5) SELECT n FROM r;
CREATE VIEW w_sequence AS SELECT PREVIOUS VALUE FOR s_plain AS p;
CREATE VIEW w_aggregate AS SELECT f_aggregate(a) AS s FROM g_base;
SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT';
CREATE VIEW "w_ansi" AS SELECT "b" || '-' || 'x' AS "con""cat" FROM "g_base";
SET sql_mode='', NAMES latin1;
CREATE VIEW w_latin1 AS SELECT 'abc' AS c, _latin1 X'E4F6' AS u;
SET NAMES utf8mb4 COLLATE utf8mb4_general_ci;
CREATE TABLE g_dropped (x INT); CREATE VIEW w_broken AS SELECT x FROM g_dropped; CREATE VIEW w_broken_on_broken AS SELECT x+1 AS y FROM w_broken; DROP TABLE g_dropped;
CREATE FUNCTION f_dropped() RETURNS INT RETURN 1; CREATE VIEW w_broken_function AS SELECT f_dropped() AS z; DROP FUNCTION f_dropped;
CREATE TABLE g_changed (x INT, y INT); CREATE VIEW w_broken_column AS SELECT x, y FROM g_changed; ALTER TABLE g_changed DROP COLUMN y;

-- triggers: several per event in an order that is not that of their names or of their creation
CREATE TABLE g_trig (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100), n INT NOT NULL DEFAULT 0);
INSERT INTO g_trig VALUES (1,'before any trigger',0);
DELIMITER //
CREATE TRIGGER t_m BEFORE INSERT ON g_trig FOR EACH ROW SET NEW.v = CONCAT(IFNULL(NEW.v,''), 'm')//
CREATE TRIGGER t_z BEFORE INSERT ON g_trig FOR EACH ROW PRECEDES t_m SET NEW.v = CONCAT(IFNULL(NEW.v,''), 'z')//
CREATE DEFINER=`gone`@`nowhere` TRIGGER t_a BEFORE INSERT ON g_trig FOR EACH ROW FOLLOWS t_m SET NEW.n = NEW.n + 1//
SET sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES'//
CREATE TRIGGER "t odd`name" BEFORE INSERT ON "g_trig" FOR EACH ROW FOLLOWS t_z BEGIN SET NEW.v = 'b\' + "NEW"."v"; END//
SET sql_mode='', NAMES latin1//
CREATE TRIGGER t_latin1 AFTER INSERT ON g_trig FOR EACH ROW INSERT INTO g_audit (what) VALUES (_latin1 X'E46674')//
SET NAMES utf8mb4 COLLATE utf8mb4_general_ci//
CREATE TRIGGER t_upd_1 BEFORE UPDATE ON g_trig FOR EACH ROW SET NEW.n = OLD.n + 1//
CREATE TRIGGER t_upd_0 BEFORE UPDATE ON g_trig FOR EACH ROW PRECEDES t_upd_1 SET NEW.n = OLD.n * 2//
CREATE TRIGGER t_del AFTER DELETE ON g_trig FOR EACH ROW BEGIN
  -- comment with 'quote' and ☃
  INSERT INTO g_audit (what) VALUES (CONCAT('deleted ', OLD.id));
END//
CREATE TRIGGER t_broken BEFORE DELETE ON g_base FOR EACH ROW INSERT INTO not_there VALUES (OLD.id)//
CREATE TRIGGER torture_refs.t_refs BEFORE INSERT ON torture_refs.child FOR EACH ROW SET @child = NEW.id//
DELIMITER ;

-- events: none of them changes data while the lab runs
SET time_zone='+00:00';
DELIMITER //
CREATE EVENT ev_enabled ON SCHEDULE EVERY 1 HOUR STARTS '2020-01-01 00:00:00' ON COMPLETION PRESERVE ENABLE COMMENT 'does''nt write' DO SET @tick = 1//
CREATE EVENT ev_future ON SCHEDULE EVERY '1 2:3' DAY_MINUTE STARTS '2037-01-01 00:00:00.0' ENDS '2037-12-31 23:59:59' DO INSERT INTO torture.g_audit (what) VALUES ('must not run yet')//
CREATE EVENT ev_disabled ON SCHEDULE EVERY 3 MONTH STARTS '2021-06-01 12:00:00' DISABLE DO BEGIN DELETE FROM torture.g_base; END//
CREATE EVENT ev_slave ON SCHEDULE EVERY 1 WEEK STARTS '2037-02-02 00:00:00' DISABLE ON SLAVE DO SET @x = 2//
CREATE DEFINER=`gone`@`nowhere` EVENT ev_once ON SCHEDULE AT '2037-11-11 11:11:11' ON COMPLETION NOT PRESERVE DO SET @x = 3//
SET time_zone='Lab/Berlin', sql_mode='ANSI_QUOTES', NAMES latin1//
CREATE EVENT "ev odd`name" ON SCHEDULE EVERY 1 DAY STARTS '2036-07-01 02:30:00' DO SELECT "id" FROM torture.g_base//
SET time_zone='-11:30', sql_mode='STRICT_TRANS_TABLES', NAMES utf8mb4 COLLATE utf8mb4_general_ci//
CREATE EVENT `odd``tick`.ev_offset ON SCHEDULE EVERY 90 SECOND STARTS '2036-01-01 00:00:00' DO BEGIN SET @x = '😀'; END//
SET time_zone='+00:00', sql_mode=''//
DELIMITER ;
