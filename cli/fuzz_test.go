package cli

import (
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// FuzzParseInstance: an instance from the command line is a usage error that says what to type, or makes an estate.
func FuzzParseInstance(f *testing.F) {
	for _, s := range []string{"etcd@east,n1=10.0.0.5:2379@infra-1,password_file=/p", "secrets,paths=/x", "etcd,x", "mariadb,m=1:2,password=p", ",=,=:", "etcd,a=http://x:1@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in, err := parseInstance(s, "vm-1")
		if err != nil {
			if p := problem.As(err); p.Code != problem.Usage || p.Hint == "" {
				t.Fatalf("%q: %+v", s, p)
			}
			return
		}
		a := &app{}
		a.paths.VM = "vm-1"
		text, err := a.estateText(setupOptions{instances: []string{s}})
		if err != nil {
			t.Fatal(err)
		}
		e, err := config.Parse(text)
		if err != nil {
			return
		}
		if len(e.Instances) != 1 || e.Instances[0].Component != in.Component {
			t.Fatalf("%q became %+v", s, e.Instances)
		}
		for _, m := range e.Instances[0].Members {
			for k := range m.Options {
				if strings.EqualFold(k, "password") {
					t.Fatalf("%q: a password in the estate file", s)
				}
			}
		}
	})
}
