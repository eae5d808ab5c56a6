package mariadb

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"
	"testing"
)

// corruption damages one object; the fingerprint must change in lines of
// exactly these kinds. undo must make it as it was; where there is no cheap
// way back, undo is nil and what follows is judged against the new state.
type corruption struct {
	name  string
	do    []string
	undo  []string
	kinds string // sorted, separated by spaces
}

const sjisPlain = "_sjis X'835C8B5C'"

var corruptions = []corruption{
	{"a row", []string{"UPDATE v_int SET t=126 WHERE t=127"}, []string{"UPDATE v_int SET t=127 WHERE t=126"}, "rows"},
	{"a FLOAT's last bit", []string{"UPDATE v_float SET f=16777214 WHERE id=2"}, []string{"UPDATE v_float SET f=16777215 WHERE id=2"}, "rows"},
	{"a DOUBLE's last bit", []string{"UPDATE v_float SET d=0.3 WHERE id=11"}, []string{"UPDATE v_float SET d=0.30000000000000004 WHERE id=11"}, "rows"},
	{"a denormal FLOAT", []string{"UPDATE v_float SET f=0 WHERE id=4"}, []string{"UPDATE v_float SET f=1.4e-45 WHERE id=4"}, "rows"},
	{"-0 and 0 in a geometry", []string{"UPDATE v_geometry SET g=ST_GeomFromText('POINT(1.1 0)',4326) WHERE id=1"}, []string{"UPDATE v_geometry SET g=ST_GeomFromText('POINT(1.1 -0.0)',4326) WHERE id=1"}, "rows"},
	// The server keeps no sign of zero in FLOAT and DOUBLE, whichever way it is sent; if one does one day, this fails.
	{"-0 and 0 in a FLOAT", []string{"UPDATE v_float SET f=-0e0, d='-0' WHERE id=10"}, []string{"UPDATE v_float SET f=0, d=0 WHERE id=10"}, ""},
	{"an SRID", []string{"UPDATE v_geometry SET g=ST_GeomFromText('POINT(1.1 -0.0)',4327) WHERE id=1"}, []string{"UPDATE v_geometry SET g=ST_GeomFromText('POINT(1.1 -0.0)',4326) WHERE id=1"}, "rows"},
	{"JSON spacing", []string{`UPDATE v_json SET s='{ } ' WHERE id=2`}, []string{`UPDATE v_json SET s=' { } ' WHERE id=2`}, "rows"},
	{"an ENUM's error value and its empty member", []string{"UPDATE v_enum SET e0=0 WHERE id=3"}, []string{"UPDATE v_enum SET e0='' WHERE id=3"}, "rows"},
	{"a zero date and NULL", []string{"UPDATE v_date SET d=NULL WHERE id=1"}, []string{"UPDATE v_date SET d='0000-00-00' WHERE id=1"}, "rows"},
	{"the sign of a small TIME", []string{"UPDATE v_date SET t6='00:00:00.000001' WHERE id=4"}, []string{"UPDATE v_date SET t6='-00:00:00.000001' WHERE id=4"}, "rows"},
	{"YEAR 0 and 2000", []string{"UPDATE v_date SET y=2000 WHERE id=1"}, []string{"UPDATE v_date SET y=0000 WHERE id=1"}, "rows"},
	{"a DECIMAL's last digit", []string{"UPDATE v_decimal SET d=0.000000000000000000000000000002 WHERE id=3"}, []string{"UPDATE v_decimal SET d=0.000000000000000000000000000001 WHERE id=3"}, "rows"},
	{"a bit", []string{"UPDATE v_bit SET b64=0xFFFFFFFFFFFFFFFE WHERE id=2"}, []string{"UPDATE v_bit SET b64=0xFFFFFFFFFFFFFFFF WHERE id=2"}, "rows"},
	{"a trailing space", []string{"UPDATE v_text SET vc='a' WHERE id=2"}, []string{"UPDATE v_text SET vc='a ' WHERE id=2"}, "rows"},
	{"a byte of sjis text", []string{"UPDATE v_charset SET sj=_sjis X'835C8B5D' WHERE id=1"}, []string{"UPDATE v_charset SET sj=" + sjisPlain + " WHERE id=1"}, "rows"},
	{"the text NULL and NULL", []string{"UPDATE v_one_column SET x='\\\\N' WHERE x IS NULL"}, []string{"UPDATE v_one_column SET x=NULL WHERE x='\\\\N' LIMIT 1"}, "rows"},
	{"a duplicate in a table without key", []string{"DELETE FROM v_nokey WHERE b='dup' LIMIT 1"}, []string{"INSERT INTO v_nokey VALUES (1,'dup',0.1,'x')"}, "rows"},
	{"an invisible column's value", []string{"UPDATE c_invisible SET hidden=43 WHERE id=1"}, []string{"UPDATE c_invisible SET hidden=42 WHERE id=1"}, "rows"},
	{"a MEMORY row", []string{"UPDATE e_memory SET v='x' WHERE id=1"}, []string{"UPDATE e_memory SET v='volatile' WHERE id=1"}, "rows"},
	{"a CSV row", []string{"UPDATE e_csv SET a=3 WHERE a=2"}, []string{"UPDATE e_csv SET a=2 WHERE a=3"}, "rows"},
	{"a blob's last byte", []string{"UPDATE cso_images.image SET content=CONCAT(content,X'00') WHERE id=12"}, []string{"UPDATE cso_images.image SET content=LEFT(content,LENGTH(content)-1) WHERE id=12"}, "rows"},
	{"a UUID", []string{"UPDATE v_net SET a6='::1' WHERE a6='::'"}, []string{"UPDATE v_net SET a6='::' WHERE a6='::1'"}, "rows"},
	{"a history row", []string{"SET system_versioning_insert_history=1", "INSERT INTO h_implicit (id,v,f,row_start,row_end) VALUES (77,'old',1,'1990-01-01','1991-01-01')"}, []string{"DELETE HISTORY FROM h_implicit BEFORE SYSTEM_TIME '1992-01-01'"}, "rows"},
	{"AUTO_INCREMENT", []string{"ALTER TABLE v_auto_ahead AUTO_INCREMENT=1000001"}, []string{"ALTER TABLE v_auto_ahead AUTO_INCREMENT=1000000"}, "auto_increment table"},
	{"a column's collation", []string{"ALTER TABLE v_one_column MODIFY x VARCHAR(5) COLLATE utf8mb4_bin"}, []string{"ALTER TABLE v_one_column MODIFY x VARCHAR(5) COLLATE utf8mb4_unicode_520_ci"}, "table"},
	{"a table's comment", []string{"ALTER TABLE c_check COMMENT 'check'"}, []string{"ALTER TABLE c_check COMMENT 'checks'"}, "table"},
	{"a CHECK", []string{"ALTER TABLE c_check DROP CONSTRAINT named"}, []string{"SET check_constraint_checks=0", "ALTER TABLE c_check ADD CONSTRAINT named CHECK (a <> b)"}, "table"},
	{"a foreign key's action", []string{"ALTER TABLE fk_self DROP FOREIGN KEY fk_self"}, []string{"ALTER TABLE fk_self ADD CONSTRAINT fk_self FOREIGN KEY (parent) REFERENCES fk_self (id) ON DELETE CASCADE"}, "table"},
	{"a column's invisibility", []string{"ALTER TABLE c_invisible MODIFY hidden INT DEFAULT 7"}, []string{"ALTER TABLE c_invisible MODIFY hidden INT INVISIBLE DEFAULT 7"}, "table"},
	{"a partition", []string{"ALTER TABLE p_empty_parts ADD PARTITION (PARTITION p9 VALUES LESS THAN (9))"}, []string{"ALTER TABLE p_empty_parts DROP PARTITION p9"}, "table"},
	{"an index's order", []string{"ALTER TABLE v_desckey DROP KEY ud, ADD UNIQUE KEY ud (d)"}, []string{"ALTER TABLE v_desckey DROP KEY ud, ADD UNIQUE KEY ud (d DESC)"}, "table"},
	{"a schema's comment", []string{"ALTER DATABASE `dot.ted` COMMENT 'x'"}, []string{"ALTER DATABASE `dot.ted` COMMENT ''"}, "database"},
	{"a schema's collation", []string{"ALTER DATABASE `with space` COLLATE utf8mb3_bin"}, []string{"ALTER DATABASE `with space` COLLATE utf8mb3_general_ci"}, "database"},
	{"a new schema", []string{"CREATE DATABASE later"}, []string{"DROP DATABASE later"}, "database"},
	{"a sequence's position", []string{"DO NEXTVAL(s_negative)"}, []string{"ALTER SEQUENCE s_negative RESTART -7"}, "position"},
	{"a view's definer", []string{"ALTER DEFINER=root@localhost VIEW w_ghost AS SELECT id FROM g_base"}, []string{"SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci", "ALTER DEFINER=gone@'%' VIEW w_ghost AS SELECT id FROM g_base"}, "view"},
	{"a trigger's order", []string{"DROP TRIGGER t_a", "CREATE DEFINER=gone@nowhere TRIGGER t_a BEFORE INSERT ON g_trig FOR EACH ROW PRECEDES t_z SET NEW.n = NEW.n + 1"}, []string{"DROP TRIGGER t_a", "CREATE DEFINER=gone@nowhere TRIGGER t_a BEFORE INSERT ON g_trig FOR EACH ROW FOLLOWS t_m SET NEW.n = NEW.n + 1"}, "trigger_order"},
	{"a trigger's sql_mode", []string{"SET sql_mode=ANSI_QUOTES", "DROP TRIGGER t_latin1", "CREATE TRIGGER t_latin1 AFTER INSERT ON g_trig FOR EACH ROW SET @x=1"}, nil, "trigger"},
	{"a routine's body", []string{"CREATE OR REPLACE PROCEDURE p_latin1() SELECT  'plain'"}, nil, "routine"},
	{"a routine's comment", []string{"ALTER FUNCTION f_plain COMMENT 'x'"}, []string{`ALTER FUNCTION f_plain COMMENT 'it''s a "function"'`}, "routine"},
	{"an aggregate", []string{"DROP FUNCTION f_aggregate"}, nil, "routine"},
	{"a package body", []string{"SET sql_mode=ORACLE", "CREATE PACKAGE BODY pkg_spec_only AS PROCEDURE later AS BEGIN NULL; END; END"}, []string{"SET sql_mode=ORACLE", "DROP PACKAGE BODY pkg_spec_only"}, "routine"},
	{"an event's status", []string{"ALTER EVENT ev_disabled ENABLE"}, []string{"ALTER EVENT ev_disabled DISABLE"}, "event_status"},
	{"an event's comment", []string{"ALTER EVENT ev_enabled COMMENT 'x'"}, []string{"ALTER EVENT ev_enabled COMMENT 'does''nt write'"}, "event"},
	{"a global grant", []string{"GRANT SHUTDOWN ON *.* TO nopass@'%'"}, []string{"REVOKE SHUTDOWN ON *.* FROM nopass@'%'"}, "account grant"},
	{"a schema grant", []string{"GRANT DROP ON torture.* TO role_read"}, []string{"REVOKE DROP ON torture.* FROM role_read"}, "db grant"},
	{"a table grant", []string{"GRANT DELETE ON g_base TO app@'%'"}, []string{"REVOKE DELETE ON g_base FROM app@'%'"}, "grant tables_priv"},
	{"a column grant", []string{"GRANT SELECT (c) ON g_base TO app@'192.168.%'"}, []string{"REVOKE SELECT (c) ON g_base FROM app@'192.168.%'"}, "columns_priv grant"},
	{"a routine grant", []string{"GRANT ALTER ROUTINE ON FUNCTION f_plain TO app@'%'"}, []string{"REVOKE ALTER ROUTINE ON FUNCTION f_plain FROM app@'%'"}, "grant procs_priv"},
	{"a proxy grant", []string{"GRANT PROXY ON ed@'%' TO nopass@'%'"}, []string{"REVOKE PROXY ON ed@'%' FROM nopass@'%'"}, "grant proxies_priv"},
	{"a role's admin option", []string{"GRANT role_read TO role_write WITH ADMIN OPTION"}, []string{"REVOKE ADMIN OPTION FOR role_read FROM role_write"}, "grant roles_mapping"},
	{"a default role", []string{"SET DEFAULT ROLE NONE FOR app@localhost"}, []string{"SET DEFAULT ROLE role_admin FOR app@localhost"}, "account default_role grant"},
	{"a password hash", []string{"SET timestamp=1600002000", "ALTER USER app@'%' IDENTIFIED BY 'other'"}, []string{"SET timestamp=1600002000", "ALTER USER app@'%' IDENTIFIED BY PASSWORD '*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29'"}, "account create_user grant"},
	{"when a password was set", []string{"SET timestamp=1600002001", "ALTER USER app@'%' IDENTIFIED BY PASSWORD '*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29'"}, []string{"SET timestamp=1600002000", "ALTER USER app@'%' IDENTIFIED BY PASSWORD '*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29'"}, "account"},
	{"an account lock", []string{"ALTER USER nopass@'%' ACCOUNT LOCK"}, []string{"ALTER USER nopass@'%' ACCOUNT UNLOCK"}, "account create_user"},
	{"a resource limit", []string{"ALTER USER limited@'%' WITH MAX_QUERIES_PER_HOUR 11"}, []string{"ALTER USER limited@'%' WITH MAX_QUERIES_PER_HOUR 10"}, "account create_user grant"},
	{"REQUIRE", []string{"ALTER USER nopass@'%' REQUIRE SSL"}, []string{"ALTER USER nopass@'%' REQUIRE NONE"}, "account create_user grant"},
	{"a role", []string{"CREATE ROLE later WITH ADMIN role_admin"}, []string{"DROP ROLE later"}, "account grant roles_mapping"},
	{"a foreign server's password", []string{"ALTER SERVER lab_fed_2 OPTIONS (PASSWORD 'x')"}, []string{"ALTER SERVER lab_fed_2 OPTIONS (PASSWORD '')"}, "servers"},
	{"an installed plugin", []string{"UNINSTALL SONAME 'metadata_lock_info'"}, []string{"INSTALL SONAME 'metadata_lock_info'"}, "plugin"},
	{"a time zone", []string{"UPDATE mysql.time_zone_transition_type SET `Offset`=3601 WHERE Time_zone_id=7001 AND Transition_type_id=0"}, []string{"UPDATE mysql.time_zone_transition_type SET `Offset`=3600 WHERE Time_zone_id=7001 AND Transition_type_id=0"}, "rows"},
	{"a sequence's cache", []string{"ALTER SEQUENCE s_set CACHE 3"}, nil, "position"},
	{"an ARCHIVE row", []string{"INSERT INTO e_archive VALUES (10,'x')"}, nil, "auto_increment rows table"},
	{"a dropped table", []string{"DROP TABLE v_empty"}, nil, "rows table"},
	{"a dropped view", []string{"DROP VIEW w_broken_on_broken"}, nil, "view"},
}

// TestFingerprintSeesEveryCorruption is the judge's own trial.
func TestFingerprintSeesEveryCorruption(t *testing.T) {
	fill(t, 1)
	// The bulk of the rows has no part in this and is read once per corruption.
	alter(t, "less to read", []string{"TRUNCATE cso_metrics.sample", "TRUNCATE cso_documents.document", "TRUNCATE cso_audit.event_log", "DROP DATABASE many"})
	base := fingerprint(t)
	for _, k := range corruptions {
		alter(t, k.name, k.do)
		now := fingerprint(t)
		if got := strings.Join(slices.Sorted(maps.Keys(kinds(base, now))), " "); got != k.kinds {
			t.Errorf("%s: lines of kinds %q changed, want %q:\n%s", k.name, got, k.kinds, strings.Join(differing(base, now), "\n"))
		}
		if k.undo == nil {
			base = now
			continue
		}
		// What an undo leaves behind shows as a wrong kind in the next case.
		alter(t, k.name, k.undo)
	}
	if rest := kinds(base, fingerprint(t)); len(rest) > 0 {
		t.Errorf("after undoing all, lines differ: %v", rest)
	}
}

// alter runs statements in a session of their own, in the torture schema.
func alter(t *testing.T, name string, stmts []string) {
	t.Helper()
	ctx := t.Context()
	db, err := open(lab[0], "unix", "torture")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := session(ctx, db, "SET sql_mode='ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone='+00:00', foreign_key_checks=0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range stmts {
		// Objects remember the sql_mode they were made in.
		if !strings.HasPrefix(s, "UPDATE") && !strings.HasPrefix(s, "INSERT") && !strings.HasPrefix(s, "SET") {
			clearMode(ctx, t, c, stmts)
		}
		if _, err := c.ExecContext(ctx, s); err != nil {
			t.Fatalf("%s: %s: %v", name, s, err)
		}
	}
}

func clearMode(ctx context.Context, t *testing.T, c *sql.Conn, stmts []string) {
	t.Helper()
	if strings.HasPrefix(stmts[0], "SET sql_mode") {
		return
	}
	if _, err := c.ExecContext(ctx, "SET sql_mode=''"); err != nil {
		t.Fatal(err)
	}
}
