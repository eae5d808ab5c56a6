package server

import (
	"errors"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/aql"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Error is an answer of the form {"error":true,"code":…,"errorNum":…,"errorMessage":…}.
type Error struct {
	Code    int // HTTP
	Num     int // ArangoDB's own
	Message string
	Extra   *value.Object // further attributes of the answer
}

func (e *Error) Error() string { return fmt.Sprintf("%d/%d %s", e.Code, e.Num, e.Message) }

// ArangoDB's error numbers with the HTTP code and text they go with (errors.dat of the server).
var known = map[int]struct {
	code int
	text string
}{
	4:    {500, "internal error"},
	9:    {501, "not implemented"},
	10:   {400, "bad parameter"},
	11:   {403, "forbidden"},
	18:   {409, "lock timeout"},
	21:   {410, "request canceled"},
	36:   {404, "not found"},
	400:  {400, "bad parameter"},
	401:  {401, "unauthorized"},
	404:  {404, "not found"},
	405:  {405, "method not supported"},
	501:  {501, "not implemented"},
	503:  {503, "service unavailable"},
	600:  {400, "invalid JSON object"},
	601:  {400, "superfluous URL suffices"},
	1004: {403, "read only"},
	1200: {412, "conflict, _rev values do not match"},
	1202: {404, "document not found"},
	1203: {404, "collection or view not found"},
	1204: {400, "parameter 'collection' not found"},
	1205: {400, "illegal document identifier"},
	1207: {409, "duplicate name"},
	1208: {400, "illegal name"},
	1210: {409, "unique constraint violated"},
	1212: {404, "index not found"},
	1217: {400, "cross collection requests not permitted"},
	1221: {400, "illegal document key"},
	1222: {400, "unexpected document key"},
	1226: {401, "not authorized to execute this request"},
	1227: {400, "invalid document type"},
	1228: {404, "database not found"},
	1229: {400, "database name invalid"},
	1230: {403, "operation only allowed in system database"},
	1233: {400, "edge attribute missing or invalid"},
	1234: {400, "index insertion warning - attribute missing in document"},
	1457: {503, "operation timed out in cluster"},
	1464: {404, "shard not found"},
	1470: {400, "must not specify _key for this collection"},
	1478: {503, "a cluster backend which was required for the operation could not be reached"},
	1496: {421, "not a leader"},
	1500: {410, "query killed"},
	1501: {400, "syntax error"},
	1540: {404, "usage of unknown function"},
	1551: {400, "no value specified for declared bind parameter"},
	1552: {400, "bind parameter was not declared in the query"},
	1582: {404, "user function not found"},
	1591: {404, "query id not found"},
	1600: {404, "cursor not found"},
	1620: {400, "schema validation failed"},
	1652: {409, "transaction already committed or aborted"},
	1655: {404, "transaction not found"},
	1702: {409, "duplicate user"},
	1703: {404, "user not found"},
	1852: {404, "task not found"},
	1851: {409, "duplicate task id"},
	1920: {400, "edge collection is used in another graph"},
	1924: {404, "graph not found"},
	1925: {409, "graph already exists"},
	1926: {404, "vertex collection does not exist or is not part of the graph"},
	1930: {404, "edge collection not used in graph"},
	1938: {400, "collection already in graph"},
	3009: {404, "service not found"},
	3011: {409, "service mountpoint already in use"},
}

// fail makes the answer for an error number; a text replaces the usual one.
func fail(num int, message ...any) *Error {
	k, ok := known[num]
	if !ok {
		k.code, k.text = 500, "error"
	}
	e := &Error{Code: k.code, Num: num, Message: k.text}
	if len(message) > 0 {
		e.Message = fmt.Sprintf(message[0].(string), message[1:]...)
	}
	return e
}

func (e *Error) withCode(code int) *Error { e.Code = code; return e }

// errorOf turns any error into an answer.
func errorOf(err error) *Error {
	var known *Error
	var unique *store.UniqueError
	var parse *aql.ParseError
	var bind *aql.BindError
	var unknown *aql.UnknownFunctionError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unique):
		return fail(1210, "%s", unique.Error())
	case errors.Is(err, store.ErrKeyExists):
		return fail(1210, "%s", err.Error())
	case errors.Is(err, store.ErrNotFound):
		return fail(1202)
	case errors.As(err, &parse):
		return fail(1501, "%s", err.Error())
	case errors.As(err, &bind):
		return fail(1551, "%s", err.Error())
	case errors.As(err, &unknown):
		return fail(1540, "%s", err.Error())
	}
	return fail(4, "%s", err.Error())
}

// body is the answer's JSON.
func (e *Error) body() *value.Object {
	o := value.New("code", e.Code, "error", true, "errorMessage", e.Message, "errorNum", e.Num)
	if e.Extra != nil {
		for _, m := range e.Extra.Members {
			o.Set(m.Name, m.Value)
		}
	}
	return o
}
