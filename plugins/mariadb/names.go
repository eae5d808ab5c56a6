package mariadb

import (
	"fmt"
	"regexp"
	"strings"
)

// ownSchema holds the claim and the journal of a running restore. It and the
// shadow schemas are outside backup, digest and compare.
const ownSchema = "_cso_backup"

var shadowName = regexp.MustCompile(`^_cso_([0-9]+)_[a-z]+_?[0-9]*$`)

// serverSchemas are those that belong to the server itself.
const serverSchemas = "'mysql','information_schema','performance_schema','sys'"

// skipSchemas is the SQL condition that leaves user schemas only.
func skipSchemas(column string) string {
	return column + " NOT IN (" + serverSchemas + ",'" + ownSchema + "') AND " + column + " NOT REGEXP '^_cso_[0-9]+_[a-z]+_?[0-9]*$'"
}

// tableFilter is the SQL condition for the tables to copy: those of user
// schemas, and the time zones, which events and sessions may name.
func tableFilter(prefix string) string {
	return "(" + skipSchemas(prefix+"TABLE_SCHEMA") + " OR (" + prefix + "TABLE_SCHEMA='mysql' AND " + prefix + "TABLE_NAME LIKE 'time\\_zone%'))"
}

// q quotes an identifier.
func q(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// qq quotes a qualified identifier.
func qq(schema, name string) string { return q(schema) + "." + q(name) }

// lit quotes a string literal; safe in every sql_mode but NO_BACKSLASH_ESCAPES,
// which sessions of this package switch off.
func lit(s string) string {
	r := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`)
	return "'" + r.Replace(s) + "'"
}

// tableArtifact is the artifact's name of a table's rows.
func tableArtifact(schema, table string) string {
	return "table/" + escapeName(schema) + "/" + escapeName(table)
}

func escapeName(s string) string { return strings.NewReplacer("%", "%25", "/", "%2F").Replace(s) }

// splitArtifact undoes tableArtifact; ok is false for other artifacts.
func splitArtifact(name string) (schema, table string, ok bool) {
	rest, ok := strings.CutPrefix(name, "table/")
	if !ok {
		return "", "", false
	}
	s, t, ok := strings.Cut(rest, "/")
	un := strings.NewReplacer("%2F", "/", "%25", "%")
	return un.Replace(s), un.Replace(t), ok && s != "" && t != ""
}

// Artifacts that are not a table's rows.
const (
	definitionsArtifact = "definitions"
	accountsArtifact    = "accounts"
)

func shadowSchema(epoch uint64, n int) string { return fmt.Sprintf("_cso_%d_new_%d", epoch, n) }
func oldSchema(epoch uint64, n int) string    { return fmt.Sprintf("_cso_%d_old_%d", epoch, n) }

// deltaTable is where rows of table n that are to go ("cut"), to come ("add") or to be ("set") are kept until then.
func deltaTable(epoch uint64, kind string, n int) string {
	return qq(ownSchema, fmt.Sprintf("_cso_%d_%s_%d", epoch, kind, n))
}
