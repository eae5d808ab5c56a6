package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Entry is the content of one schedule file, STATE/schedules/NAME.json.
type Entry struct {
	Format      int       `json:"format"` // 1
	Name        string    `json:"name"`   // of the schedule and of the backups it takes
	Cron        string    `json:"cron"`   // as typed
	Maintenance bool      `json:"maintenance"`
	Paused      bool      `json:"paused"`
	Note        string    `json:"note,omitempty"` // who paused it, and why
	Changed     time.Time `json:"changed"`
}

const (
	format  = 1
	suffix  = ".json"
	maxFile = 64 << 10
)

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ErrNone: there is no schedule of that name.
var ErrNone = errors.New("no such schedule")

// Check says whether the entry can be kept and run.
func (e Entry) Check() error {
	if e.Format != format {
		return fmt.Errorf("format %d: this version knows %d", e.Format, format)
	}
	if !name.MatchString(e.Name) {
		return fmt.Errorf("name %q: use 1 to 64 letters, digits, dots, dashes, underscores, the first a letter or digit", e.Name)
	}
	_, err := Parse(e.Cron)
	return err
}

// List reads all schedule files of dir, by name. Files that cannot be read
// are reported in the error; the readable ones are returned beside it.
func List(dir string) ([]Entry, error) {
	names, err := names(dir)
	if err != nil {
		return nil, err
	}
	var out []Entry
	var errs []error
	for _, n := range names {
		e, err := Load(dir, n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, e)
	}
	return out, errors.Join(errs...)
}

// names lists the schedules that have a file, readable or not.
func names(dir string) ([]string, error) {
	files, err := os.ReadDir(dir) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	var out []string
	for _, f := range files {
		if n, ok := strings.CutSuffix(f.Name(), suffix); ok && f.Type().IsRegular() && name.MatchString(n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// Load reads one schedule; ErrNone when it has no file.
func Load(dir, n string) (Entry, error) {
	var e Entry
	if !name.MatchString(n) {
		return e, fmt.Errorf("%q: %w", n, ErrNone)
	}
	path := filepath.Join(dir, n+suffix)
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return e, fmt.Errorf("%s: %w", n, ErrNone)
	case err != nil:
		return e, fmt.Errorf("schedule %s: %w", n, err)
	case !st.Mode().IsRegular() || st.Size() > maxFile:
		return e, fmt.Errorf("schedule %s: %s is not a schedule file: remove it", n, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return e, fmt.Errorf("schedule %s: %w", n, err)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, fmt.Errorf("schedule %s: %s: %w: correct it, or delete it and add the schedule again", n, path, err)
	}
	if err := e.Check(); err != nil {
		return e, fmt.Errorf("schedule %s: %s: %w", n, path, err)
	}
	if e.Name != n {
		return e, fmt.Errorf("schedule %s: %s names %q: the name inside must be that of the file", n, path, e.Name)
	}
	return e, nil
}

// Save writes a schedule file, replacing an older one in one step.
func Save(dir string, e Entry) (err error) {
	e.Format = format
	if err := e.Check(); err != nil {
		return fmt.Errorf("schedule %s: %w", e.Name, err)
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("schedule %s: %w", e.Name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("schedule %s: %w", e.Name, err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("schedule %s: %w", e.Name, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, werr := f.Write(append(b, '\n'))
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("schedule %s: %w", e.Name, err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, e.Name+suffix)); err != nil {
		return fmt.Errorf("schedule %s: %w", e.Name, err)
	}
	return syncDir(dir)
}

// Remove deletes a schedule file; ErrNone when there is none.
func Remove(dir, n string) error {
	if !name.MatchString(n) {
		return fmt.Errorf("%q: %w", n, ErrNone)
	}
	err := os.Remove(filepath.Join(dir, n+suffix))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", n, ErrNone)
	}
	if err != nil {
		return fmt.Errorf("delete schedule: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync schedules: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync schedules: %w", err)
	}
	return nil
}
