package cassandra

import (
	"fmt"
	"strings"
)

// awkward are statements with every value that is easily lost on the way, the
// same for every seed. Each has its own write time; none depends on another,
// except through those times, which decide and not the order.
func awkward() []string {
	var ss []string
	at := int64(writtenAt)
	add := func(statement string) { // USING TIMESTAMP stands in the statement as %d
		at += 7
		ss = append(ss, strings.ReplaceAll(statement, "%d", fmt.Sprint(at)))
	}
	for _, values := range []string{
		`(1, 'ascii', 9223372036854775807, 0x00ff, true, '2024-02-29', 3.14159265358979323846264338327950288419716939937510, 1.7976931348623157E308, 1y2mo3w4d5h6m7s8ms9us10ns, 3.4028235E38, '::1', 2147483647, 32767, 'ünï 数据 \u0000 text', '23:59:59.999999999', '2024-01-01T00:00:00.001Z', 50554d6e-29bb-11e5-b345-feff819cdc9f, 127, 00000000-0000-0000-0000-000000000000, 123456789012345678901234567890123456789)`,
		`(2, '', -9223372036854775808, 0x, false, 0, -0.000, -0.0, -1d, -0.0, '255.255.255.255', -2147483648, -32768, '', '00:00:00', -1, 00000000-0000-1000-8080-808080808080, -128, ffffffff-ffff-4fff-bfff-ffffffffffff, -1)`,
		`(3, 'nan', 0, null, null, '1970-01-01', 1E-300, NaN, 0s, NaN, '0.0.0.0', 0, 0, 'line\nbreak	tab "quote" ''single'' \\', '12:00:00', 0, null, 0, null, 0)`,
		`(4, 'inf', 1, 0x` + strings.Repeat("ab", 40000) + `, true, 4294967295, 1E+300, Infinity, 1mo, Infinity, 'fe80::1', 1, 1, '` + strings.Repeat("long ", 13000) + `', '00:00:00.000000001', 253402300799999, null, 1, null, 256)`,
		`(5, null, null, null, null, null, null, -Infinity, null, -Infinity, null, null, null, 'é', null, -62135596800000, null, null, null, null)`,
	} {
		add(`INSERT INTO cso_inventory.types (id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s) VALUES ` + values + ` USING TIMESTAMP %d`)
	}
	// A row of nothing but its key lives on when its cells are gone; one made by UPDATE does not.
	add(`INSERT INTO cso_inventory.types (id) VALUES (-1) USING TIMESTAMP %d`)
	add(`UPDATE cso_inventory.types USING TIMESTAMP %d SET k = 5 WHERE id = -2`)
	add(`INSERT INTO cso_inventory.types (id, m) VALUES (-3, 'in the future') USING TIMESTAMP 4102444800000000`) // wins against every write until 2100
	add(`INSERT INTO cso_inventory.types (id, m) VALUES (-4, 'very old') USING TIMESTAMP 1`)
	add(`INSERT INTO cso_inventory.types (id, m) VALUES (-5, 'before 1970') USING TIMESTAMP -5`)

	add(`INSERT INTO cso_inventory.collections (id, l, s, m, fl, fm, t, u, fu, q, lu) VALUES (1, [1, 2, 2, 3], {'b', 'a', ''}, {'k': 1, '': 2}, [], {1: {3, 2}, -1: {}}, (7, null, [8]), {street: 'Main', zip: 8000, tags: {'x'}}, {name: 'n', home: {street: null, zip: 1, tags: {}}, phones: {'home': '1'}}, {"a field": 1, other: 'o'}, [{street: 's', zip: null, tags: null}]) USING TIMESTAMP %d`)
	add(`INSERT INTO cso_inventory.collections (id, l, m) VALUES (2, [10], {'first': 1}) USING TIMESTAMP %d`)
	add(`UPDATE cso_inventory.collections USING TIMESTAMP %d SET l = l + [11, 12], m = m + {'second': 2}, s = s + {'only'} WHERE id = 2`) // elements of other ages
	add(`UPDATE cso_inventory.collections USING TIMESTAMP %d SET l = [9] + l, m['third'] = 3 WHERE id = 2`)
	add(`DELETE m['first'] FROM cso_inventory.collections USING TIMESTAMP %d WHERE id = 2`)
	add(`UPDATE cso_inventory.collections USING TIMESTAMP %d SET u.zip = 5 WHERE id = 3`) // a field of a type that is not frozen
	add(fmt.Sprintf(`UPDATE cso_inventory.collections USING TIMESTAMP %%d AND TTL %s SET m['lapses'] = 4, u.street = 'lapses' WHERE id = 3`, until(expiresAt)))
	add(`INSERT INTO cso_inventory.collections (id, l, s, m) VALUES (4, [], {}, {}) USING TIMESTAMP %d`)

	add(`INSERT INTO cso_inventory.statics (a, b, shared, "Shared List") VALUES ('only static', 1, 'no rows', [1, 2]) USING TIMESTAMP %d`)
	add(`INSERT INTO cso_inventory.statics (a, b, c, d, shared, v) VALUES ('', 0, 0, '', 'empty key parts', '') USING TIMESTAMP %d`)
	for c := range 20 {
		add(fmt.Sprintf(`INSERT INTO cso_inventory.statics (a, b, c, d, v, "select") VALUES ('deletions', 1, %d, 'x', 'v', 1) USING TIMESTAMP %%d`, c))
	}
	add(`DELETE FROM cso_inventory.statics USING TIMESTAMP %d WHERE a = 'deletions' AND b = 1 AND c > 3 AND c < 9`) // a range
	add(`DELETE FROM cso_inventory.statics USING TIMESTAMP %d WHERE a = 'deletions' AND b = 1 AND c = 10 AND d = 'x'`)
	add(`DELETE v FROM cso_inventory.statics USING TIMESTAMP %d WHERE a = 'deletions' AND b = 1 AND c = 11 AND d = 'x'`)
	add(`INSERT INTO cso_inventory.statics (a, b, c, d, v) VALUES ('deleted whole', 1, 1, 'x', 'gone') USING TIMESTAMP %d`)
	add(`DELETE FROM cso_inventory.statics USING TIMESTAMP %d WHERE a = 'deleted whole' AND b = 1`)

	add(`UPDATE cso_inventory.evolved USING TIMESTAMP 1500000000000000 SET y = 666 WHERE key = -1`) // before the drop: hidden for ever
	add(`UPDATE cso_inventory.evolved USING TIMESTAMP %d SET a = 'beside a hidden cell' WHERE key = -1`)

	ttl := func(offset int64) string { return until(expiresAt + offset) }
	add(fmt.Sprintf(`INSERT INTO cso_inventory.expiring (k, a, b) VALUES (-1, 'one', 'row') USING TTL %s AND TIMESTAMP %%d`, ttl(0)))
	add(fmt.Sprintf(`UPDATE cso_inventory.expiring USING TTL %s AND TIMESTAMP %%d SET b = 'another expiry' WHERE k = -1`, ttl(86400)))
	add(`INSERT INTO cso_inventory.expiring (k, a, b) VALUES (-2, 'never', 'lapses') USING TTL 0 AND TIMESTAMP %d`)
	add(fmt.Sprintf(`UPDATE cso_inventory.expiring USING TTL %s AND TIMESTAMP %%d SET m = {'a': 'b'} WHERE k = -3`, ttl(10)))
	add(`INSERT INTO cso_inventory.expiring (k, a) VALUES (-4, 'lapsed at once') USING TTL 1 AND TIMESTAMP %d`)

	add(`INSERT INTO "Mixed_Case"."Table" ("Key", "Ünï ""cödé""", "from") VALUES ('a ''key''', 'indexed', {a: 1}) USING TIMESTAMP %d`)
	add(`INSERT INTO "Mixed_Case"."Table" ("Key", "from") VALUES (' ', {a: null}) USING TIMESTAMP %d`)
	return ss
}

// awkward5 are those that only 5.0 has tables for.
func (e *Engine) awkward5() []string {
	if strings.HasPrefix(e.version, "4.") {
		return nil
	}
	var ss []string
	for i := range 60 {
		ss = append(ss, fmt.Sprintf(`INSERT INTO cso_inventory.documents (id, title, size, meta, v) VALUES (%d, 'Título %d', %d, {'lang': '%s'}, [%d.5, 0.25, -1.0]) USING TIMESTAMP %d`,
			i, i%10, i*100, []string{"de", "en"}[i%2], i-30, writtenAt+i))
	}
	return append(ss,
		fmt.Sprintf(`INSERT INTO cso_inventory.masked (id, mail, pin, nick, open) VALUES (1, 'someone@example.net', 1234, 'nick', 'seen') USING TIMESTAMP %d`, writtenAt+1),
		fmt.Sprintf(`INSERT INTO cso_inventory.masked (id, mail) VALUES (2, 'x') USING TIMESTAMP %d`, writtenAt+2))
}
