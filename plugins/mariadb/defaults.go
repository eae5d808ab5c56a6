package mariadb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// maxIncludes bounds how deep option files may include each other; the server's own bound is 10.
const maxIncludes = 10

// clientGroups are the sections of an option file that every client program of the server reads.
var clientGroups = []string{"client", "client-server", "client-mariadb"}

// serverGroups are the sections the server reads, whatever its version.
var serverGroups = []string{"mysqld", "server", "client-server", "mariadb", "mariadbd"}

// readDefaults reads the given sections of an option file (my.cnf) and of
// what it includes, by the rules of https://mariadb.com/kb/en/configuring-mariadb-with-option-files/:
// the last value counts, dash and underscore in a name are the same, an
// option without a value is "". Paths in the file are used as written.
func readDefaults(path string, groups ...string) (map[string]string, error) {
	d := defaults{values: map[string]string{}, groups: map[string]bool{}}
	for _, g := range groups {
		d.groups[g] = true
	}
	return d.values, d.file(path, 0)
}

type defaults struct {
	values map[string]string
	groups map[string]bool
}

func (d *defaults) file(path string, depth int) error {
	if depth > maxIncludes {
		return fmt.Errorf("option file %s: %w: files include each other more than %d deep", path, plugins.ErrConfig, maxIncludes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("option file: %w", err)
	}
	wanted := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '!':
			if err := d.include(line, depth); err != nil {
				return err
			}
		case line[0] == '[':
			name, _, _ := strings.Cut(line[1:], "]")
			wanted = d.groups[strings.TrimSpace(name)]
		case wanted:
			name, value, _ := strings.Cut(uncomment(line), "=")
			d.values[strings.ReplaceAll(strings.TrimSpace(name), "_", "-")] = unquote(strings.TrimSpace(value))
		}
	}
	return nil
}

// include follows a directive. What a directive names and is not there is no error, as for the server.
func (d *defaults) include(line string, depth int) error {
	var files []string
	if dir, ok := strings.CutPrefix(line, "!includedir"); ok {
		list, err := filepath.Glob(filepath.Join(strings.TrimSpace(dir), "*.cnf")) // sorted
		if err != nil {
			return fmt.Errorf("option file: %s: %w", line, err)
		}
		files = list
	} else if f, ok := strings.CutPrefix(line, "!include"); ok {
		files = []string{strings.TrimSpace(f)}
	}
	for _, f := range files {
		if err := d.file(f, depth+1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// uncomment cuts a comment that begins behind a value; a # in quotes is none.
func uncomment(line string) string {
	var quote byte
	escaped := false
	for i := range len(line) {
		c := line[i]
		switch {
		case (c == '\'' || c == '"') && !escaped && quote == 0:
			quote = c
		case c == quote && !escaped:
			quote = 0
		case c == '#' && quote == 0:
			return line[:i]
		}
		escaped = quote != 0 && c == '\\' && !escaped
	}
	return line
}

// unquote takes away the quotes around a value and resolves its escapes; an
// unknown escape stays as it is.
func unquote(v string) string {
	if n := len(v); n > 1 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
		v = v[1 : n-1]
	}
	var out strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' || i == len(v)-1 {
			out.WriteByte(v[i])
			continue
		}
		i++
		if at := strings.IndexByte(`ntrbs"'\`, v[i]); at >= 0 {
			out.WriteByte("\n\t\r\b \"'\\"[at])
		} else {
			out.WriteByte('\\')
			out.WriteByte(v[i])
		}
	}
	return out.String()
}
