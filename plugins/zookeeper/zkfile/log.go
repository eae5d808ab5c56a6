package zkfile

import (
	"fmt"
	"hash/adler32"
	"os"
	"path/filepath"

	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

// Transaction types (ZooDefs.OpCode) that touch a type or an access list.
const (
	txnCreate          = 1
	txnSetACL          = 7
	txnMulti           = 14
	txnCreate2         = 15
	txnCreateContainer = 19
	txnCreateTTL       = 21
)

const endOfRecord = 'B'

// ReadLog hands over the events of a transaction log and says which zxid it
// reaches. A last record that is not whole is an error wrapping ErrFormat, after all whole ones were handed over.
func ReadLog(path string, each func(Event) error) (last int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := newStream(f)
	if err := s.header(logMagic); err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	for {
		sum, rec := s.long(), s.bytes()
		if s.err == nil && len(rec) == 0 { // the server writes ahead zeros
			return last, nil
		}
		end := s.fill(s.b[:1])[0]
		if s.err != nil {
			return last, fmt.Errorf("%s after zxid 0x%x: %w", filepath.Base(path), uint64(last), s.err)
		}
		if end != endOfRecord || sum != int64(adler32.Checksum(rec)) {
			return last, fmt.Errorf("%s after zxid 0x%x: checksum does not match: %w", filepath.Base(path), uint64(last), ErrFormat)
		}
		d := zkwire.Decoder{B: rec}
		d.Long() // session
		d.Int()  // its request
		zxid := d.Long()
		d.Long() // time
		kind := d.Int()
		if err := events(&d, zxid, kind, each); err != nil {
			return last, fmt.Errorf("%s at zxid 0x%x: %w", filepath.Base(path), uint64(zxid), err)
		}
		last = zxid
	}
}

func events(d *zkwire.Decoder, zxid int64, kind int32, each func(Event) error) error {
	ev := Event{Zxid: zxid}
	switch kind {
	case txnCreate, txnCreate2, txnCreateContainer, txnCreateTTL:
		ev.Create = true
		ev.Path = d.String()
		d.Bytes()
		ev.ACL = d.ACLs()
		switch kind {
		case txnCreateContainer:
			ev.Owner = Owner(true, 0)
		case txnCreateTTL:
			d.Int()
			ev.Owner = Owner(false, d.Long())
		}
	case txnSetACL:
		ev.Path, ev.ACL, ev.Aversion = d.String(), d.ACLs(), d.Int()
	case txnMulti:
		for n := d.Int(); n > 0 && d.Err == nil; n-- {
			kind := d.Int()
			in := zkwire.Decoder{B: d.Bytes()}
			if d.Err != nil {
				break
			}
			if err := events(&in, zxid, kind, each); err != nil {
				return err
			}
		}
		return wrap(d.Err)
	default:
		return nil
	}
	if d.Err != nil {
		return wrap(d.Err)
	}
	return each(ev)
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}
