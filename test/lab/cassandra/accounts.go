package cassandra

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Hashes of passwords at the lowest cost. They are given as hashes so that
// equal fills have equal accounts; the server salts every password anew.
var hashes = []string{
	"$2a$04$bq7QuN7JD9u2klGyGkSvSO5Lb09wFAsY4XtTJYkYq56W3McIsvmUW", // app-secret
	"$2a$04$nZqRFZuFhVTJZNUbVBculuiUzqLeHX8QER5yddtWXe5AoU28vZVhi", // ops-secret
	"$2a$04$TCoFp6RTy2HFXBBBquoOaecUq3CUoHBWJEJzj8rJ4Ra0AyDz51fQG", // former-secret
	"$2a$04$FKbwGtKyTRbi/kdjstvYU.DxGPt8kQuXMrBwDuwh5yTE0hPB/oIaW", // wrecked-secret, for Wreck
}

// passwords are those of the roles of a fill that can log in.
var passwords = []string{"app-secret", "ops-secret", "former-secret"}

// accounts replaces all roles but the lab's and the product's by those of a
// fill: a chain of memberships, grants on every kind of resource, a second superuser.
func (e *Engine) accounts(ctx context.Context, c *gocql.Session, r *rand.Rand) error {
	roles, err := column(ctx, c, "SELECT role FROM system_auth.roles")
	if err != nil {
		return err
	}
	for _, role := range roles {
		if role != Admin && role != Backup {
			if err := c.Query("DROP ROLE IF EXISTS " + name(role)).WithContext(ctx).Exec(); err != nil {
				return fmt.Errorf("drop the role %s: %w", role, err)
			}
		}
	}
	ss := []string{
		`CREATE ROLE readers`,
		`CREATE ROLE writers`,
		`CREATE ROLE app WITH LOGIN = true`,
		`CREATE ROLE ops WITH LOGIN = true AND SUPERUSER = true`,
		`CREATE ROLE "Quoted Role" WITH LOGIN = true`,
		`CREATE ROLE barred WITH LOGIN = false`,
		`GRANT readers TO writers`,
		`GRANT writers TO app`,
		`GRANT readers TO "Quoted Role"`,
		`GRANT SELECT ON KEYSPACE cso_inventory TO readers`,
		`GRANT SELECT ON TABLE cso_single.rows TO readers`,
		`GRANT MODIFY ON KEYSPACE cso_inventory TO writers`,
		`GRANT ALTER ON TABLE cso_inventory.events TO writers`,
		`GRANT EXECUTE ON FUNCTION cso_inventory.plus_one(int) TO app`,
		`GRANT EXECUTE ON ALL FUNCTIONS IN KEYSPACE cso_inventory TO writers`,
		`GRANT AUTHORIZE ON ALL KEYSPACES TO "Quoted Role"`,
		`GRANT DESCRIBE ON ALL ROLES TO app`,
		`GRANT ALTER ON ROLE readers TO app`,
		`GRANT SELECT ON TABLE "Mixed_Case"."Table" TO app`,
		fmt.Sprintf(`GRANT %s ON TABLE cso_inventory.options TO barred`, []string{"SELECT", "MODIFY", "DROP"}[r.IntN(3)]),
	}
	if !strings.HasPrefix(e.version, "4.") {
		ss = append(ss, `GRANT UNMASK ON TABLE cso_inventory.masked TO app`, `GRANT SELECT ON ALL TABLES IN KEYSPACE cso_inventory TO barred`)
	}
	for i, role := range []string{"app", "ops", "Quoted Role"} {
		ss = append(ss, fmt.Sprintf("UPDATE system_auth.roles SET salted_hash = '%s' WHERE role = '%s'", hashes[i], role))
	}
	for _, s := range ss {
		if err := c.Query(s).WithContext(ctx).Exec(); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// CheckLogins tries the passwords of a fill's roles, which no query shows.
func CheckLogins(ctx context.Context, m engine.Member) error {
	for i, role := range []string{"app", "ops", "Quoted Role"} {
		c, err := dialAs(ctx, m, role, passwords[i])
		if err != nil {
			return err
		}
		c.Close()
	}
	return nil
}
