package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func load(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParse_expressions(t *testing.T) {
	for text, want := range map[string][]string{
		"0-13-*-*-0":            {"0 13 * * 0"},
		" 30-2-*-*-* ":          {"30 2 * * *"},
		"*/15-*-*-*-*":          {"*/15 * * * *"},
		"0,30-1,2-1-*-*":        {"0,30 1,2 1 * *"},
		"0 13 * * 1-5":          {"0 13 * * 1-5"},
		"0 0-6/2 * 1-3 *":       {"0 0-6/2 * 1-3 *"},
		"0-13-1-*-0":            {"0 13 1 * *", "0 13 * * 0"}, // OR
		"0-0-1,15-*-1":          {"0 0 1,15 * *", "0 0 * * 1"},
		"0-0-*/2-*-1":           {"0 0 */2 * 1"}, // a field that begins with * is not a restriction: AND, as in cron
		"0-0-29-2-*":            {"0 0 29 2 *"},
		"0\t5  *\t* 6":          {"0 5 * * 6"},
		"05-01-*-*-*":           {"05 01 * * *"},
		"0-0-31-1,3,5,7,8,10-*": {"0 0 31 1,3,5,7,8,10 *"},
	} {
		c, err := Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		if d := cmp.Diff(want, c.Expressions()); d != "" {
			t.Errorf("Parse(%q): %s", text, d)
		}
	}
}

func TestParse_refusals(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "is empty",
		"0-13-*-*":                "4 of 5 fields",
		"0-13-*-*-0-yes":          "6 fields",
		"0-13-*-*-1-5":            "range like 1-5",
		"0 13 * *":                "4 fields separated by blanks",
		"0-13-*-*-7":              "Sunday is 0",
		"60-13-*-*-0":             "use 0 to 59",
		"0-24-*-*-0":              "use 0 to 23",
		"0-0-0-*-*":               "use 1 to 31",
		"0-0-32-*-*":              "use 1 to 31",
		"0-0-*-13-*":              "use 1 to 12",
		"0-0-31-2-*":              "never comes",
		"0-0-31-4,6,9,11-*":       "never comes",
		"0-0-30-2-0":              "never comes",
		"x-0-*-*-*":               "not a number",
		"-1-0-*-*-*":              "6 fields",
		"+1-0-*-*-*":              "not a number",
		"1,-0-*-*-*":              "value is missing",
		"*/0-0-*-*-*":             "step",
		"*/60-0-*-*-*":            "step",
		"*/+5-0-*-*-*":            "step",
		"*/-0-*-*-*":              "step",
		"5/10-0-*-*-*":            "*/10",
		"0 0 5-1 * *":             "runs backwards",
		"0 0 * * 1-7":             "Sunday is 0",
		"@daily":                  "shorthand",
		"0 0 * * MON":             "not a number",
		"٣-0-*-*-*":               "not a number",
		"**-0-*-*-*":              "not a number",
		"99999999999999-0-*-*-*":  "not a number",
		strings.Repeat("0,", 400): "at most",
	} {
		c, err := Parse(text)
		if err == nil {
			t.Errorf("Parse(%q) = %s, want an error with %q", text, c, want)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %q in it", text, err, want)
		}
	}
}

// The expected times are from a calendar, not from this program.
func TestNext(t *testing.T) {
	for _, x := range []struct {
		cron, zone, after string
		want              []string
	}{
		{"0-13-*-*-0", "UTC", "2019-03-16T04:00:00Z", []string{"2019-03-17T13:00:00Z", "2019-03-24T13:00:00Z"}},
		{"0-13-*-*-0", "UTC", "2019-03-17T13:00:00Z", []string{"2019-03-24T13:00:00Z"}},
		{"0-13-1-*-0", "UTC", "2026-11-22T13:00:00Z", []string{"2026-11-29T13:00:00Z", "2026-12-01T13:00:00Z", "2026-12-06T13:00:00Z"}},
		{"0-0-29-2-*", "UTC", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		{"59-23-31-12-*", "UTC", "2026-12-31T23:58:59Z", []string{"2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"}},
		// Los Angeles: on 2026-03-08 02:00 becomes 03:00, so 02:30 does not come that day.
		{"30-2-*-*-*", "America/Los_Angeles", "2026-03-07T00:00:00-08:00", []string{"2026-03-07T02:30:00-08:00", "2026-03-09T02:30:00-07:00"}},
		// On 2026-11-01 02:00 becomes 01:00, so 01:30 comes twice.
		{"30-1-*-*-*", "America/Los_Angeles", "2026-10-31T12:00:00-07:00", []string{"2026-11-01T01:30:00-07:00", "2026-11-01T01:30:00-08:00", "2026-11-02T01:30:00-08:00"}},
		{"0-3-*-*-*", "America/Los_Angeles", "2026-03-07T12:00:00-08:00", []string{"2026-03-08T03:00:00-07:00"}},
		// Beirut and Havana change at midnight: that day begins at 01:00.
		{"0-0-*-*-*", "Asia/Beirut", "2022-03-26T12:00:00+02:00", []string{"2022-03-28T00:00:00+03:00"}},
		{"30-1-*-*-*", "Asia/Beirut", "2022-03-26T12:00:00+02:00", []string{"2022-03-27T01:30:00+03:00"}},
		{"0-0-*-*-*", "America/Havana", "2026-03-07T12:00:00-05:00", []string{"2026-03-09T00:00:00-04:00"}},
		// Lord Howe moves by half an hour: on 2026-10-04 02:00 becomes 02:30.
		{"15,45-2-*-*-*", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", []string{"2026-10-04T02:45:00+11:00", "2026-10-05T02:15:00+11:00"}},
		// Samoa left out 2011-12-30 altogether.
		{"0-12-30-12-*", "Pacific/Apia", "2011-12-29T13:00:00-10:00", []string{"2012-12-30T12:00:00+14:00"}},
	} {
		c, err := Parse(x.cron)
		if err != nil {
			t.Fatal(err)
		}
		after, err := time.Parse(time.RFC3339, x.after)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range c.NextN(after.In(load(t, x.zone)), len(x.want)) {
			got = append(got, n.Format(time.RFC3339))
		}
		if d := cmp.Diff(x.want, got); d != "" {
			t.Errorf("%s in %s after %s: %s", x.cron, x.zone, x.after, d)
		}
	}
}

func TestNext_endsIn2100(t *testing.T) {
	c, err := Parse("0-0-29-2-*")
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := c.Next(time.Date(2098, 1, 1, 0, 0, 0, 0, time.UTC)); ok {
		t.Errorf("2100 is no leap year, but Next is %s", n)
	}
}

// Next must agree with looking at every minute.
func TestNext_equalsWalk(t *testing.T) {
	zones := []*time.Location{time.UTC, load(t, "America/Los_Angeles"), load(t, "Asia/Beirut"), load(t, "Australia/Lord_Howe"), load(t, "Pacific/Apia"), load(t, "Africa/Casablanca")}
	rapid.Check(t, func(r *rapid.T) {
		item := func(name string, lo, hi int) string {
			switch rapid.IntRange(0, 3).Draw(r, name+" kind") {
			case 0, 1:
				return "*"
			case 2:
				return "*/" + rapid.StringMatching("[1-5]").Draw(r, name+" step")
			}
			return itoa(rapid.IntRange(lo, hi).Draw(r, name))
		}
		text := strings.Join([]string{item("m", 0, 59), item("h", 0, 23), item("dom", 1, 28), item("mon", 1, 12), item("dow", 0, 6)}, "-")
		c, err := Parse(text)
		if err != nil {
			r.Fatalf("%q: %v", text, err)
		}
		zone := rapid.SampledFrom(zones).Draw(r, "zone")
		t0 := time.Unix(rapid.Int64Range(1_300_000_000, 1_800_000_000).Draw(r, "t"), 0).In(zone)
		limit := t0.Add(40 * 24 * time.Hour)
		got, ok := c.Next(t0)
		for w := t0.Truncate(time.Minute).Add(time.Minute); w.Before(limit); w = w.Add(time.Minute) {
			if c.day(w) && c.hour.has(w.Hour()) && c.minute.has(w.Minute()) {
				if !ok || !got.Equal(w) {
					r.Fatalf("%q after %s: Next is %s, walking finds %s", text, t0, got, w)
				}
				return
			}
		}
		if ok && got.Before(limit) {
			r.Fatalf("%q after %s: Next is %s, walking finds none", text, t0, got)
		}
	})
}

func itoa(n int) string { return string(rune('0'+n/10)) + string(rune('0'+n%10)) }

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0-13-*-*-0", "*/5 0-6/2 1,15 * 1-5", "0-0-31-2-*", "@daily", "- - - - -", "\x00", "0-0-1-*-0"} {
		f.Add(s)
	}
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Fatal("an error without words")
			}
			return
		}
		again, err := Parse(c.String())
		if err != nil || again.String() != c.String() {
			t.Fatalf("Parse(%q) = %q, which parses to %q, %v", s, c, again, err)
		}
		n, ok := c.Next(from)
		if ok && (!n.After(from) || n.Second() != 0 || !c.day(n)) {
			t.Fatalf("%q: next is %s", s, n)
		}
		for _, e := range c.Expressions() {
			if len(strings.Fields(e)) != 5 {
				t.Fatalf("%q becomes %q", s, e)
			}
		}
	})
}
