package zkwire

import "fmt"

// Operation codes (ZooDefs.OpCode).
const (
	opCreate          = 1
	opDelete          = 2
	opExists          = 3
	opGetData         = 4
	opSetData         = 5
	opGetACL          = 6
	opSetACL          = 7
	opGetChildren     = 8
	opSync            = 9
	opPing            = 11
	opCheck           = 13
	opMulti           = 14
	opCreateContainer = 19
	opCreateTTL       = 21
	opAuth            = 100
	opClose           = -11
	opError           = -1
)

// OpMultiRead is the operation of MultiRead, unknown to servers before 3.6.
const OpMultiRead = 22

// Flags of Create (CreateMode).
const (
	flagContainer     = 4
	flagPersistentTTL = 5
	// FlagEphemeral makes a znode that lives as long as the session.
	FlagEphemeral = 1
)

// Code is the server's answer to a request; 0 is success. It is an error value.
type Code int32

// Codes that callers tell apart (KeeperException.Code).
const (
	OK            Code = 0
	Inconsistency Code = -2 // in a multi: not tried, because another operation failed
	Unimplemented Code = -6
	NoNode        Code = -101
	NoAuth        Code = -102
	BadVersion    Code = -103
	NodeExists    Code = -110
	NotEmpty      Code = -111
	Expired       Code = -112
	AuthFailed    Code = -115
)

var codeText = map[Code]string{
	Inconsistency: "not tried", Unimplemented: "request is unknown to this server", NoNode: "no such node", NoAuth: "not permitted",
	BadVersion: "changed meanwhile", NodeExists: "exists already", NotEmpty: "has children", Expired: "session expired", AuthFailed: "credentials refused",
	-1: "system error", -3: "data inconsistency", -4: "connection lost", -5: "marshalling error", -7: "timeout", -8: "bad arguments", -108: "ephemeral nodes have no children",
	-113: "invalid callback", -114: "invalid access list", -118: "session moved", -119: "server is read-only", -125: "quota exceeded", -127: "throttled",
}

// Error says what the code means.
func (c Code) Error() string {
	if t, ok := codeText[c]; ok {
		return fmt.Sprintf("zookeeper: %s (%d)", t, int32(c))
	}
	return fmt.Sprintf("zookeeper: error %d", int32(c))
}

// Request is one message to the server.
type Request struct {
	Op   int32
	Body []byte
}

// Reply is the server's answer. Body is valid until the callback returns.
type Reply struct {
	Zxid int64 // last transaction the server had applied
	Code Code
	Body []byte
}

func pathRequest(op int32, path string, watch bool) Request {
	var e Encoder
	e.String(path)
	if watch {
		e.Bool(false)
	}
	return Request{op, e.B}
}

// Exists asks for a znode's Stat.
func Exists(path string) Request { return pathRequest(opExists, path, true) }

// GetData asks for a znode's data and Stat.
func GetData(path string) Request { return pathRequest(opGetData, path, true) }

// GetChildren asks for the names of a znode's children.
func GetChildren(path string) Request { return pathRequest(opGetChildren, path, true) }

// GetACL asks for a znode's access list and Stat.
func GetACL(path string) Request { return pathRequest(opGetACL, path, false) }

// Sync makes the server catch up with the leader before later reads.
func Sync(path string) Request { return pathRequest(opSync, path, false) }

// SetACL replaces a znode's access list if its aversion is version.
func SetACL(path string, acl []ACL, version int32) Request {
	var e Encoder
	e.String(path)
	e.ACLs(acl)
	e.Int(version)
	return Request{opSetACL, e.B}
}

// Create makes a persistent znode, or with FlagEphemeral an ephemeral one.
func Create(path string, data []byte, acl []ACL, flags int32) Request {
	return create(opCreate, path, data, acl, flags)
}

// CreateContainer makes a container node, which the server removes some time after its last child.
func CreateContainer(path string, data []byte, acl []ACL) Request {
	return create(opCreateContainer, path, data, acl, flagContainer)
}

// CreateTTL makes a node that the server removes when it has no children and
// was not changed for ttl milliseconds.
func CreateTTL(path string, data []byte, acl []ACL, ttl int64) Request {
	r := create(opCreateTTL, path, data, acl, flagPersistentTTL)
	e := Encoder{r.Body}
	e.Long(ttl)
	r.Body = e.B
	return r
}

func create(op int32, path string, data []byte, acl []ACL, flags int32) Request {
	e := Encoder{make([]byte, 0, 64+len(path)+len(data))}
	e.String(path)
	e.Bytes(data)
	e.ACLs(acl)
	e.Int(flags)
	return Request{op, e.B}
}

// SetData replaces a znode's data if its version is version (-1: any).
func SetData(path string, data []byte, version int32) Request {
	e := Encoder{make([]byte, 0, 16+len(path)+len(data))}
	e.String(path)
	e.Bytes(data)
	e.Int(version)
	return Request{opSetData, e.B}
}

// Delete removes a znode without children if its version is version (-1: any).
func Delete(path string, version int32) Request { return versioned(opDelete, path, version) }

// Check lets the Multi it stands in succeed only if the znode's version is version.
func Check(path string, version int32) Request { return versioned(opCheck, path, version) }

func versioned(op int32, path string, version int32) Request {
	var e Encoder
	e.String(path)
	e.Int(version)
	return Request{op, e.B}
}

func (e *Encoder) multiHeader(op int32, done bool) {
	e.Int(op)
	e.Bool(done)
	e.Int(-1)
}

const multiHeaderSize = 9

// Multi carries out all of the requests or none. They are Create,
// CreateContainer, CreateTTL, SetData, Delete and Check.
func Multi(ops ...Request) Request {
	n := multiHeaderSize
	for _, o := range ops {
		n += multiHeaderSize + len(o.Body)
	}
	e := Encoder{make([]byte, 0, n)}
	for _, o := range ops {
		e.multiHeader(o.Op, false)
		e.B = append(e.B, o.Body...)
	}
	e.multiHeader(-1, true)
	return Request{opMulti, e.B}
}

// Size is what the request takes inside a Multi, in bytes.
func (r Request) Size() int { return multiHeaderSize + len(r.Body) }

// MultiResult says which of n operations of a Multi failed, and how; -1 and OK when none did.
func (r Reply) MultiResult() (failed int, code Code, err error) {
	if r.Code != OK {
		return 0, r.Code, nil
	}
	d := Decoder{B: r.Body}
	for i := 0; ; i++ {
		op, done := d.Int(), d.Bool()
		d.Int()
		if d.Err != nil || done {
			return -1, OK, d.Err
		}
		if op != opError { // one success means all succeeded
			return -1, OK, nil
		}
		if c := Code(d.Int()); c != OK && c != Inconsistency {
			return i, c, d.Err
		}
	}
}

// MultiRead asks for data, Stat and children of all paths (servers from 3.6).
func MultiRead(paths []string) Request {
	n := multiHeaderSize
	for _, p := range paths {
		n += MultiReadSize(p)
	}
	e := Encoder{make([]byte, 0, n)}
	for _, p := range paths {
		e.multiHeader(opGetData, false)
		e.String(p)
		e.Bool(false)
		e.multiHeader(opGetChildren, false)
		e.String(p)
		e.Bool(false)
	}
	e.multiHeader(-1, true)
	return Request{OpMultiRead, e.B}
}

// MultiReadSize is what one path takes in a MultiRead request, in bytes.
func MultiReadSize(path string) int { return 2 * (multiHeaderSize + 5 + len(path)) }

// Node is one answer of a MultiRead. Data shares memory with the reply; nil is a null buffer.
type Node struct {
	Code     Code
	Data     []byte
	Stat     Stat
	Children []string
}

// Nodes decodes a MultiRead of n paths, in their order.
func (r Reply) Nodes(n int, each func(i int, node Node) error) error {
	if r.Code != OK {
		return r.Code
	}
	d := Decoder{B: r.Body}
	for i := range n {
		var node Node
		for _, op := range [2]int32{opGetData, opGetChildren} {
			got, done := d.Int(), d.Bool()
			d.Int()
			switch {
			case d.Err != nil:
				return d.Err
			case got == opError && !done:
				node.Code = Code(d.Int())
			case got != op || done:
				return fmt.Errorf("multiRead: answer %d where %d was asked for", got, op)
			case op == opGetData:
				node.Data, node.Stat = d.Bytes(), d.Stat()
			default:
				node.Children = d.Strings()
			}
		}
		if d.Err != nil {
			return d.Err
		}
		if err := each(i, node); err != nil {
			return err
		}
	}
	return nil
}
