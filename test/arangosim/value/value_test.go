package value

import (
	"strings"
	"testing"
)

// TestNumbers: whole numbers within 64 bits stay as they are, all others are
// doubles in the layout of fpconv, which VelocyPack's dumper uses.
func TestNumbers(t *testing.T) {
	for given, want := range map[string]string{
		"0": "0", "-5": "-5", "9007199254740993": "9007199254740993",
		"18446744073709551615": "18446744073709551615", "-9223372036854775808": "-9223372036854775808",
		"18446744073709551616": "18446744073709552000",
		"1.0":                  "1", "1e2": "100", "-0.0": "-0.0", "0.1": "0.1", "1e25": "1e+25", "1e-7": "1e-7", "5e-324": "5e-324",
	} {
		v, err := Parse([]byte(given))
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		if got := string(JSON(v)); got != want {
			t.Errorf("%s became %s, want %s", given, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, bad := range []string{"", "{", `{"a":1,"a":2}`, "01", "1.", "tru", `"\x"`, "[1,]", "1 2", "\xff", `"` + "\xff" + `"`, strings.Repeat("[", 300) + strings.Repeat("]", 300)} {
		if v, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%.40q was taken as %s", bad, JSON(v))
		}
	}
}

// FuzzParse: what is written of a value reads as the same value and is written the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x",null,true,{"b":{}}]}`, `-1e-300`, `"ü\u0000\ud83d\ude42\ud800"`, `18446744073709551615`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Parse(b)
		if err != nil {
			return
		}
		text := JSON(v)
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%q was written as %q, which does not read: %v", b, text, err)
		}
		if Compare(v, again) != 0 || string(JSON(again)) != string(text) {
			t.Fatalf("%q became %q and then %q", b, text, JSON(again))
		}
	})
}
