package mariadb

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Health looks at the server, and at the cluster when it is a Galera node.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	h := plugins.Health{Grade: plugins.Green, Version: s.version, Members: 1}
	worse := func(g plugins.Grade, format string, a ...any) {
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, a...))
		if g == plugins.Red || h.Grade == plugins.Green {
			h.Grade = g
		}
	}
	rows, err := table(ctx, s.db, "SELECT VARIABLE_NAME,VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME IN ('READ_ONLY','LOCAL_INFILE','INNODB_READ_ONLY','INNODB_FORCE_RECOVERY')"+
		" UNION ALL SELECT VARIABLE_NAME,VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN ('UPTIME','WSREP_READY','WSREP_CLUSTER_SIZE','WSREP_CLUSTER_STATUS','WSREP_LOCAL_STATE','WSREP_LOCAL_STATE_COMMENT')")
	if err != nil {
		return h, classify(ctx, err)
	}
	v := map[string]string{}
	for _, r := range rows {
		v[r[0]] = r[1]
	}
	if v["READ_ONLY"] != "OFF" {
		worse(plugins.Amber, "the server is read_only: a restore needs it writable")
	}
	if v["LOCAL_INFILE"] != "ON" {
		worse(plugins.Amber, "local_infile is off: a restore needs SET GLOBAL local_infile=ON")
	}
	if f := v["INNODB_FORCE_RECOVERY"]; f != "" && f != "0" {
		worse(plugins.Red, "innodb_force_recovery is %s: the server runs in emergency mode", f)
	}
	if s.wsrep {
		if n, err := strconv.Atoi(v["WSREP_CLUSTER_SIZE"]); err == nil && n > 0 {
			h.Members = n
		}
		switch {
		case v["WSREP_CLUSTER_STATUS"] != "Primary":
			worse(plugins.Red, "Galera component is %q, not Primary", v["WSREP_CLUSTER_STATUS"])
		case v["WSREP_READY"] != "ON":
			worse(plugins.Red, "Galera node is not ready")
		case v["WSREP_LOCAL_STATE"] != "4":
			worse(plugins.Red, "Galera node is %s, not Synced", v["WSREP_LOCAL_STATE_COMMENT"])
		}
	}
	rows, err = table(ctx, s.db, "SELECT TABLE_SCHEMA,TABLE_NAME,COALESCE(DATA_LENGTH,0),ENGINE,COALESCE(TABLE_COMMENT,''),TABLE_TYPE FROM information_schema.TABLES WHERE "+skipSchemas("TABLE_SCHEMA"))
	if err != nil {
		return h, classify(ctx, err)
	}
	h.Empty = len(rows) == 0
	var broken []string
	for _, r := range rows {
		n, _ := strconv.ParseInt(r[2], 10, 64)
		h.Estimate += n
		if r[3] == "" && r[5] != "VIEW" {
			broken = append(broken, r[0]+"."+r[1]+" ("+r[4]+")")
		}
	}
	if len(broken) > 0 {
		worse(plugins.Red, "tables that cannot be opened: %s", brief(broken))
	}
	if h.Empty {
		n, err := value(ctx, s.db, "SELECT (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE "+skipSchemas("SCHEMA_NAME")+")+(SELECT COUNT(*) FROM mysql.global_priv WHERE User NOT IN ('root','mysql','mariadb.sys','PUBLIC','') AND CONCAT(User,'@',Host)<>CURRENT_USER())")
		if err != nil {
			return h, classify(ctx, err)
		}
		h.Empty = n == "0"
	}
	if left, err := s.leftovers(ctx); err != nil {
		return h, classify(ctx, err)
	} else if len(left) > 0 {
		worse(plugins.Amber, "left by an unfinished restore: %s; the next restore uses or removes them", strings.Join(left, ", "))
	}
	return h, nil
}

// leftovers lists shadow schemas of restores, and tables with rows to go or to come.
func (s *session) leftovers(ctx context.Context) ([]string, error) {
	names, err := table(ctx, s.db, "SELECT '',SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '\\_cso\\_%'"+
		" UNION ALL SELECT '"+ownSchema+".',TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA='"+ownSchema+"' AND TABLE_NAME LIKE '\\_cso\\_%' ORDER BY 1,2")
	var out []string
	for _, n := range names {
		if shadowName.MatchString(n[1]) {
			out = append(out, n[0]+n[1])
		}
	}
	return out, err
}
