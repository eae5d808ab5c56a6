package store

import (
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// WriteBackup copies the file as it is now; writes go on meanwhile.
func (s *Store) WriteBackup(path string) error {
	return s.bolt.View(func(tx *bolt.Tx) error {
		if err := tx.CopyFile(path, 0o600); err != nil {
			return fmt.Errorf("write the hot backup: %w", err)
		}
		return nil
	})
}

// RestoreBackup replaces everything by the content of a copy, in one transaction.
// Ticks go on above those that were given out since the copy.
func (s *Store) RestoreBackup(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("the hot backup: %w", err)
	}
	from, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("open the hot backup: %w", err)
	}
	defer from.Close()
	return s.bolt.Update(func(tx *bolt.Tx) error {
		tick := tx.Bucket(metaBucket).Get(tickKey)
		tick = append([]byte(nil), tick...)
		var names [][]byte
		err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			names = append(names, append([]byte(nil), name...))
			return nil
		})
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := tx.DeleteBucket(n); err != nil {
				return err
			}
		}
		err = from.View(func(old *bolt.Tx) error {
			return old.ForEach(func(name []byte, b *bolt.Bucket) error {
				to, err := tx.CreateBucket(name)
				if err != nil {
					return err
				}
				return copyBucket(to, b)
			})
		})
		if err != nil {
			return fmt.Errorf("restore the hot backup: %w", err)
		}
		return tx.Bucket(metaBucket).Put(tickKey, tick)
	})
}

func copyBucket(to, from *bolt.Bucket) error {
	return from.ForEach(func(k, v []byte) error {
		if v != nil {
			return to.Put(k, v)
		}
		sub := from.Bucket(k)
		if sub == nil { // a key with an empty value
			return to.Put(k, nil)
		}
		made, err := to.CreateBucket(k)
		if err != nil {
			return err
		}
		return copyBucket(made, sub)
	})
}
