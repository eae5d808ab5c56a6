package zkwire

import "testing"

// FuzzDecoder: whatever a server sends, the decoder stays within the message,
// allocates no more than it holds, and after an error gives zero values only.
func FuzzDecoder(f *testing.F) {
	var e Encoder
	e.ACLs([]ACL{{31, "world", "anyone"}})
	e.Bytes(nil)
	e.String("/a")
	f.Add(e.B, []byte{5, 2, 3})
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff}, []byte{4})
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 9}, []byte{2, 5, 6})
	f.Fuzz(func(t *testing.T, message, kinds []byte) {
		if len(kinds) > 64 {
			kinds = kinds[:64]
		}
		d := Decoder{B: message}
		for _, k := range kinds {
			failed, size := d.Err != nil, 0
			switch k % 8 {
			case 0:
				size = int(d.Int() & 1)
			case 1:
				size = int(d.Long() & 1)
			case 2:
				size = len(d.Bytes())
			case 3:
				size = len(d.String())
			case 4:
				l := d.Strings()
				if size = len(l); 4*len(l) > len(message) {
					t.Fatalf("%d strings out of %d bytes", len(l), len(message))
				}
			case 5:
				l := d.ACLs()
				if size = len(l); 12*len(l) > len(message) {
					t.Fatalf("%d entries out of %d bytes", len(l), len(message))
				}
			case 6:
				if d.Stat() != (Stat{}) {
					size = 1
				}
			case 7:
				if d.Bool() {
					size = 1
				}
			}
			if failed && (size != 0 || d.Err == nil) {
				t.Fatalf("a value of %d after an error", size)
			}
			if len(d.B) > len(message) {
				t.Fatal("the message grew")
			}
		}
	})
}

// FuzzReply: answers of many reads and writes in one message.
func FuzzReply(f *testing.F) {
	var e Encoder
	e.multiHeader(opGetData, false)
	e.Bytes([]byte("data"))
	e.B = append(e.B, make([]byte, 68)...) // Stat
	e.multiHeader(opGetChildren, false)
	e.Int(1)
	e.String("c")
	f.Add(e.B, 1)
	e.multiHeader(opError, false)
	e.Int(-110)
	f.Add(e.B, 2)
	f.Add([]byte{}, 1000)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		if n < 0 || n > 1000 {
			return
		}
		r := Reply{Body: body}
		seen := 0
		err := r.Nodes(n, func(i int, _ Node) error {
			if i != seen {
				t.Fatalf("answer %d after %d", i, seen)
			}
			seen++
			return nil
		})
		if err == nil && seen != n {
			t.Fatalf("%d answers of %d, and no error", seen, n)
		}
		if failed, code, err := r.MultiResult(); err == nil && failed >= 0 && code == OK {
			t.Fatalf("operation %d failed with no code", failed)
		}
	})
}
