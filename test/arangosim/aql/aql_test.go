package aql

import "testing"

// FuzzParse: no query text ends the process. The seeds are statements of the vendor's suite.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"FOR d IN `c-1` FILTER d.value >= @min && d.category == @@x SORT d.value DESC LIMIT 0, 10 RETURN { id: d._key, n: d.value * 2 }",
		`FOR v, e, p IN 1..1 OUTBOUND "a/1" GRAPH "g" RETURN CONCAT_SEPARATOR("--", p.vertices[*].value)`,
		`FOR doc IN v SEARCH doc.d[? FILTER CURRENT.type == "h" AND CURRENT.value > 20] OPTIONS {waitForSync:true} RETURN doc`,
		"FOR i IN 1..10 LET s = (FOR x IN 1..100 RETURN x * i) RETURN {i, sum: SUM(s)}",
		"FOR u IN c FILTER u.age>>>100 RETURN u", "INSERT {a: 1} INTO c RETURN NEW", "", "((((", "'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := Parse(text); err == nil && q == nil {
			t.Fatal("no error and no query")
		}
	})
}
