package mariadb

import "testing"

func TestSortColumns(t *testing.T) {
	for in, want := range map[string]string{
		"GRANT SELECT (`b`, `a`), INSERT (`id`) ON `x`.`y` TO `u`@`%`": "GRANT SELECT (`a`, `b`), INSERT (`id`) ON `x`.`y` TO `u`@`%`",
		"GRANT SELECT (`z``,)`, `(`) ON `x(b, a)`.`y` TO `u`":          "GRANT SELECT (`(`, `z``,)`) ON `x(b, a)`.`y` TO `u`",
		"GRANT USAGE ON *.* TO `u`@`%`":                                "GRANT USAGE ON *.* TO `u`@`%`",
	} {
		if got := sortColumns(in); got != want {
			t.Errorf("sortColumns(%s) = %s, want %s", in, got, want)
		}
	}
}
