package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/pki"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

type setupOptions struct {
	confirmKey string
	estate     string
	vms        []string
	instances  []string
	holder     string
	replace    bool
	keys       keys.Change
}

func (a *app) setupCommand(wire wireFunc) *cobra.Command {
	var o setupOptions
	cmd := wire(&cobra.Command{
		Use: "setup", Short: "make keys and certificates, write the estate file", Args: exactly(0, ""),
		Long: `Make what an installation needs: certificates, keys, the store. It may be run
again at any time; what exists is kept.

An instance is written COMPONENT[@INSTANCE],MEMBER=ADDRESS[@VM],OPTION=VALUE…
Passwords stand in files that an option names (password_file=/path), never here.

--rotate makes a new identity, --add-recipient and --remove-recipient change who
else can open backups. All of it counts for backups made from then on: they store
everything anew, once. What was made before stays, and needs the old identity.`,
		Example: `  cso_backupnrestore setup
  cso_backupnrestore setup --confirm-key /media/usb/identity
  cso_backupnrestore setup --rotate
  cso_backupnrestore setup --add-recipient age1…
  cso_backupnrestore setup --estate-from estate.yaml
  cso_backupnrestore setup --vm installer-vm --vm infra-1 \
      --instance ` + databaseNames()[0] + `,n1=10.0.0.5:2379@infra-1,password_file=/etc/pw`,
	}, func(_ context.Context, _ []string) (*outcome, error) { return a.setup(o) })
	f := cmd.Flags()
	f.StringVar(&o.confirmKey, "confirm-key", "", "FILE that holds the copy of the identity, or - for standard input")
	f.StringVar(&o.estate, "estate-from", "", "FILE to check and install as the estate file")
	f.StringArrayVar(&o.vms, "vm", nil, "a VM with a worker; the first is the installer-vm")
	f.StringArrayVar(&o.instances, "instance", nil, "an instance, see above")
	f.StringVar(&o.holder, "switch", "", "COMPONENT[@INSTANCE] that holds the product's maintenance switch")
	f.BoolVar(&o.keys.NewIdentity, "rotate", false, "make a new identity for backups from now on; the old one stays for old backups")
	f.StringArrayVar(&o.keys.Add, "add-recipient", nil, "an age recipient (age1…) that can open backups from now on")
	f.StringArrayVar(&o.keys.Remove, "remove-recipient", nil, "a recipient that cannot open backups made from now on")
	f.BoolVar(&o.replace, "replace", false, "replace an estate file that exists (it is kept beside it)")
	return cmd
}

// setupView is the result of setup.
type setupView struct {
	PKI         string `json:"pki"`
	Keys        string `json:"keys"`
	KeysCreated bool   `json:"keysCreated"`
	Confirmed   bool   `json:"copyConfirmed"`
	Estate      string `json:"estate,omitempty"` // written
}

func (a *app) setup(o setupOptions) (*outcome, error) {
	if o.confirmKey != "" {
		return a.confirmKey(o.confirmKey)
	}
	if o.keys.NewIdentity || len(o.keys.Add)+len(o.keys.Remove) > 0 {
		return a.rotate(o)
	}
	v := setupView{PKI: a.paths.PKI(), Keys: a.paths.Keys()}
	estate, text, err := a.newEstate(o)
	if err != nil {
		return nil, err
	}
	if err := a.checkRoot(); err != nil {
		return nil, err
	}
	for _, d := range []string{a.paths.Root, a.paths.State} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, problem.New(problem.Failed, "run this as root on the installer-vm", "make %s: %w", d, err)
		}
	}
	vms := []string{a.paths.VM}
	if estate == nil {
		if estate, err = config.Load(a.paths.Estate); err != nil && !errors.Is(err, config.ErrNoFile) {
			return nil, problem.New(problem.Failed, "correct it, or give a new one with --estate-from FILE --replace", "%w", err)
		}
	}
	if estate != nil {
		vms = vms[:0]
		for _, vm := range estate.VMs {
			vms = append(vms, vm.Name)
		}
	}
	if err := pki.Ensure(a.paths.PKI(), vms...); err != nil {
		return nil, problem.New(problem.Failed, "run this as root on the installer-vm", "certificates: %w", err)
	}
	if v.KeysCreated, err = keys.Ensure(a.paths.Keys()); err != nil {
		return nil, a.keyError(err)
	}
	v.Confirmed = keys.Confirmed(a.paths.Keys())
	if text != nil {
		if err := a.writeEstate(text, o.replace); err != nil {
			return nil, err
		}
		v.Estate = a.paths.Estate
	}
	return a.setupDone(v)
}

func (a *app) setupDone(v setupView) (*outcome, error) {
	o := &outcome{Result: v, Message: "this installation is set up", Next: []string{"cso_backupnrestore doctor", "cso_backupnrestore -b healthcheck"}}
	if _, err := keys.LoadReader(a.paths.Keys()); err != nil {
		o.Code, o.Message = problem.Warnings, "this installation can make backups and not restore them: "+err.Error()+". Put back the copy of the identity as "+a.identityFile()
	}
	if !v.Confirmed {
		o.Next = append([]string{"cso_backupnrestore setup --confirm-key COPY"}, o.Next...)
	}
	o.Text = func() {
		a.out.Line("certificates: %s", v.PKI)
		a.out.Line("keys: %s", v.Keys)
		if v.Estate != "" {
			a.out.Line("estate file: %s", v.Estate)
		}
		if v.KeysCreated {
			a.showIdentity()
		}
	}
	if v.KeysCreated && a.out.JSON {
		a.note("keep a copy of %s elsewhere: without it no backup can ever be restored", a.identityFile())
	}
	return o, nil
}

func (a *app) identityFile() string { return filepath.Join(a.paths.Keys(), "identity") }

// showIdentity shows the new identity, once, on a terminal only: elsewhere it
// would end in a log.
func (a *app) showIdentity() {
	a.out.Line("")
	a.out.Paragraph("", "This is the identity, the one key that opens your backups. Keep a copy elsewhere: without it no backup can ever be restored. It is shown this once.")
	if !a.out.Live {
		a.out.Paragraph("", "(not shown here, as this is not a terminal: copy "+a.identityFile()+")")
		return
	}
	b, err := os.ReadFile(a.identityFile())
	if err != nil {
		a.out.Paragraph("", "cannot show it: "+err.Error())
		return
	}
	a.out.Line("")
	for l := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		a.out.Line("    %s", l)
	}
	a.out.Line("")
}

func (a *app) confirmKey(file string) (*outcome, error) {
	var r io.Reader = a.p.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, problem.New(problem.Key, "name the file that holds your copy", "%w", err)
		}
		defer f.Close()
		mine, err1 := os.Stat(a.identityFile())
		theirs, err2 := f.Stat()
		if err1 == nil && err2 == nil && os.SameFile(mine, theirs) {
			return nil, problem.New(problem.Key, "copy it to another machine or medium first, and show that copy", "%s is the identity itself, not a copy of it", file)
		}
		r = f
	}
	if err := keys.ConfirmCopy(a.paths.Keys(), io.LimitReader(r, maxGiven)); err != nil {
		return nil, problem.New(problem.Key, "show a copy of "+a.identityFile(), "%w", err)
	}
	return &outcome{Result: map[string]bool{"copyConfirmed": true}, Message: "the copy opens this installation's backups; keep it safe"}, nil
}

// newEstate reads or builds an estate file; nil when none was asked for.
func (a *app) newEstate(o setupOptions) (*config.Estate, []byte, error) {
	var text []byte
	switch {
	case o.estate != "" && (len(o.instances) > 0 || len(o.vms) > 0 || o.holder != ""):
		return nil, nil, usage("use --estate-from alone, or --vm, --instance and --switch", "the estate was given twice")
	case o.estate != "":
		b, err := readGiven(o.estate)
		if err != nil {
			return nil, nil, problem.New(problem.Failed, "name a file that can be read", "%w", err)
		}
		text = b
	case len(o.instances) > 0 || len(o.vms) > 0:
		b, err := a.estateText(o)
		if err != nil {
			return nil, nil, err
		}
		text = b
	case o.holder != "":
		return nil, nil, usage("give the instances too", "--switch needs --instance")
	default:
		return nil, nil, nil
	}
	e, err := config.Parse(text)
	if err != nil {
		return nil, nil, usage("correct it and run this again; nothing was written", "the estate is not right: %w", err)
	}
	return e, text, nil
}

// readGiven reads a file that the operator names, which may be a pipe.
func readGiven(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxGiven+1))
	if err == nil && len(b) > maxGiven {
		err = fmt.Errorf("%s is larger than %s", name, ui.Bytes(maxGiven))
	}
	return b, err
}

const maxGiven = 1 << 20 // bytes

type estateDoc struct {
	VMs       []map[string]string `yaml:"vms"`
	Instances []instanceDoc       `yaml:"instances"`
	Switch    map[string]string   `yaml:"switch,omitempty"`
}

type instanceDoc struct {
	Component string      `yaml:"component"`
	Instance  string      `yaml:"instance,omitempty"`
	Members   []memberDoc `yaml:"members"`
}

type memberDoc struct {
	Name    string            `yaml:"name"`
	VM      string            `yaml:"vm"`
	Address string            `yaml:"address,omitempty"`
	Options map[string]string `yaml:"options,omitempty"`
}

func (a *app) estateText(o setupOptions) ([]byte, error) {
	if len(o.vms) == 0 {
		o.vms = []string{a.paths.VM}
	}
	var d estateDoc
	for _, v := range o.vms {
		d.VMs = append(d.VMs, map[string]string{"name": v})
	}
	for _, s := range o.instances {
		in, err := parseInstance(s, o.vms[0])
		if err != nil {
			return nil, err
		}
		d.Instances = append(d.Instances, in)
	}
	if o.holder != "" {
		c, i, _ := strings.Cut(o.holder, "@")
		d.Switch = map[string]string{"component": c}
		if i != "" {
			d.Switch["instance"] = i
		}
	}
	b, err := yaml.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write the estate: %w", err)
	}
	return b, nil
}

// parseInstance reads COMPONENT[@INSTANCE],MEMBER=ADDRESS[@VM],…,OPTION=VALUE,…
// A value that begins like an address (it has a port) makes a member, the rest are options.
func parseInstance(s, vm string) (instanceDoc, error) {
	parts := strings.Split(s, ",")
	var in instanceDoc
	in.Component, in.Instance, _ = strings.Cut(parts[0], "@")
	c, ok := plugins.Lookup(in.Component)
	if !ok {
		return in, usage("write COMPONENT,MEMBER=ADDRESS,OPTION=VALUE", "%q is not a component", in.Component)
	}
	in.Component = c.Name
	opts := map[string]string{}
	for _, p := range parts[1:] {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" || v == "" {
			return in, usage("write COMPONENT,MEMBER=ADDRESS,OPTION=VALUE", "%q in --instance %s is not NAME=VALUE", p, in.Component)
		}
		addr, on, placed := strings.Cut(v, "@")
		if !isAddress(addr) || strings.HasSuffix(k, "_url") {
			opts[k] = v
			continue
		}
		if !placed {
			on = vm
		}
		in.Members = append(in.Members, memberDoc{Name: k, VM: on, Address: addr})
	}
	if len(in.Members) == 0 {
		in.Members = []memberDoc{{Name: vm, VM: vm}}
	}
	for i := range in.Members {
		in.Members[i].Options = opts
	}
	return in, nil
}

func isAddress(s string) bool {
	i := strings.LastIndexByte(s, ':')
	return i > 0 && i < len(s)-1 && strings.Trim(s[i+1:], "0123456789") == "" && !strings.HasPrefix(s, "/")
}

func (a *app) writeEstate(text []byte, replace bool) error {
	p := a.paths.Estate
	old, err := os.ReadFile(p)
	switch {
	case err == nil && string(old) == string(text):
		return nil
	case err == nil && !replace:
		return problem.New(problem.Confirm, "add --replace; the old one is kept beside it", "%s exists and says something else", p)
	case err == nil:
		if err := os.WriteFile(p+".before-"+a.now().UTC().Format("20060102T150405Z"), old, 0o600); err != nil {
			return fmt.Errorf("keep the old estate file: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("estate file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return fmt.Errorf("estate file: %w", err)
	}
	tmp := p + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return fmt.Errorf("estate file: %w", err)
	}
	if err := os.Rename(tmp, p); err != nil {
		return fmt.Errorf("estate file: %w", err)
	}
	return nil
}
