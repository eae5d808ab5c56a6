// Package maven fetches servers that are published as Java archives, through
// Maven as the machine has it set up, and keeps them in the lab's cache.
package maven

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/packages"
)

// plugin copies artifacts into a folder; the version is pinned, so that every machine does the same.
const plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// Artifact is one coordinate.
type Artifact struct {
	Group, Name, Version string
	Type, Classifier     string // empty: jar, none
}

// Set is what one server is made of.
type Set struct {
	Name      string     // of its folder in the cache; every version has its own
	Title     string     // as said to the user
	Artifacts []Artifact // each with its dependencies
	// Arrange turns the fetched files in lib into what the server is started from; nil: nothing to do.
	Arrange func(ctx context.Context, dir string) error
}

// Ensure makes Maven and a JDK 17 available.
func Ensure(ctx context.Context, w io.Writer) error {
	return packages.Ensure(ctx, w, []string{"mvn", "java", "javac"}, "maven", "openjdk-17-jdk-headless")
}

// Dir is where a set is kept between labs: below it lib, and what Arrange made.
func Dir(s Set) (string, error) {
	cache, err := packages.CacheDir()
	return filepath.Join(cache, s.Name), err
}

// Fetch fills the set's folder unless that was done before. Of two that fetch
// the same set at once, one waits for the other.
func Fetch(ctx context.Context, w io.Writer, s Set) error {
	if err := Ensure(ctx, w); err != nil {
		return err
	}
	dir, err := Dir(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	done := filepath.Join(dir, "fetched") // written last: a download that was cut short is done again
	if exists(done) {
		return nil
	}
	unlock, err := lock(ctx, w, s, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if exists(done) {
		return nil
	}
	begin := time.Now()
	fmt.Fprintf(w, "downloading %s with Maven into %s; the first time takes up to a minute\n", s.Title, dir)
	if err := download(ctx, w, s, dir); err != nil {
		return err
	}
	if s.Arrange != nil {
		if err := s.Arrange(ctx, dir); err != nil {
			return fmt.Errorf("arrange %s in %s: %w", s.Title, dir, err)
		}
	}
	if err := os.WriteFile(done, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return fmt.Errorf("mark the download as done: %w", err)
	}
	fmt.Fprintf(w, "downloaded %s in %.0fs\n", s.Title, time.Since(begin).Seconds())
	return nil
}

// lock waits for another download of the same set, and says so.
func lock(ctx context.Context, w io.Writer, s Set, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the download's lock: %w", err)
	}
	for said := false; ; said = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing releases the lock
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the download: %w", err), f.Close())
		}
		if !said {
			fmt.Fprintf(w, "waiting for another lab that downloads %s\n", s.Title)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// download runs Maven and says every quarter of a minute how far it is.
func download(ctx context.Context, w io.Writer, s Set, dir string) error {
	lib := filepath.Join(dir, "lib")
	if err := os.RemoveAll(lib); err != nil {
		return fmt.Errorf("empty the cache: %w", err)
	}
	if err := os.MkdirAll(lib, 0o700); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	pom, err := project(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), pom, 0o600); err != nil {
		return fmt.Errorf("write Maven's project: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-ntp", plugin, "-DoutputDirectory="+lib, "-DincludeScope=runtime")
	cmd.Dir = dir
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start Maven: %w; install maven", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for begin := time.Now(); ; {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("download %s: %w; run mvn in %s to see more\n%s", s.Title, err, dir, tail(out.String()))
			}
			return nil
		case <-tick.C:
			fmt.Fprintf(w, "still downloading %s, %.0fs\n", s.Title, time.Since(begin).Seconds())
		}
	}
}

// tail keeps an error readable: Maven repeats its cause at the end.
func tail(s string) string { return s[max(0, len(s)-3000):] }

// The parts of a pom.xml that name dependencies.
type (
	pomProject struct {
		XMLName      xml.Name        `xml:"http://maven.apache.org/POM/4.0.0 project"`
		ModelVersion string          `xml:"modelVersion"`
		GroupID      string          `xml:"groupId"`
		ArtifactID   string          `xml:"artifactId"`
		Version      string          `xml:"version"`
		Packaging    string          `xml:"packaging"`
		Dependencies []pomDependency `xml:"dependencies>dependency"`
	}
	pomDependency struct {
		GroupID    string `xml:"groupId"`
		ArtifactID string `xml:"artifactId"`
		Version    string `xml:"version"`
		Type       string `xml:"type,omitempty"`
		Classifier string `xml:"classifier,omitempty"`
	}
)

func project(s Set) ([]byte, error) {
	p := pomProject{ModelVersion: "4.0.0", GroupID: "lab", ArtifactID: s.Name, Version: "1", Packaging: "pom"}
	for _, a := range s.Artifacts {
		p.Dependencies = append(p.Dependencies, pomDependency{a.Group, a.Name, a.Version, a.Type, a.Classifier})
	}
	b, err := xml.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode Maven's project: %w", err)
	}
	return b, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// javaDirs are where Debian puts JDK 17.
const javaDirs = "/usr/lib/jvm/java-17-openjdk-*/bin"

// Tool is the path of a program of JDK 17 (java, javac): Debian's, else the one in PATH.
func Tool(name string) string {
	found, err := filepath.Glob(filepath.Join(javaDirs, name))
	if err != nil || len(found) == 0 {
		return name
	}
	return found[0]
}

// Compile compiles Java sources (file name to text) against a class path into
// dir, unless that was done before for the same sources.
func Compile(ctx context.Context, dir, classPath string, sources map[string]string) error {
	if exists(filepath.Join(dir, "compiled")) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	unlock, err := lock(ctx, io.Discard, Set{Title: "Java classes"}, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if exists(filepath.Join(dir, "compiled")) {
		return nil
	}
	argv := []string{"-nowarn", "-cp", classPath, "-d", dir}
	for name, text := range sources {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write a Java source: %w", err)
		}
		argv = append(argv, path)
	}
	if out, err := exec.CommandContext(ctx, Tool("javac"), argv...).CombinedOutput(); err != nil {
		return fmt.Errorf("compile Java sources in %s: %w\n%s", dir, err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "compiled"), nil, 0o600); err != nil {
		return fmt.Errorf("mark the classes as compiled: %w", err)
	}
	return nil
}
