// Package aql runs the subset of ArangoDB's query language that backup,
// restore and the vendor's driver tests need: FOR over collections, views,
// ranges, arrays and one graph traversal; FILTER, SEARCH, SORT, LIMIT, LET,
// COLLECT, RETURN, sub-queries, INSERT, UPDATE, REPLACE and REMOVE, and a
// handful of functions. It has no optimizer and uses no index.
package aql

import (
	"fmt"
	"strings"
)

// ParseError is a query that is no AQL (error 1501).
type ParseError struct{ Message string }

func (e *ParseError) Error() string { return "AQL: " + e.Message }

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenQuoted // `name`
	tokenString
	tokenNumber
	tokenBind       // @name
	tokenCollection // @@name
	tokenOp
)

type token struct {
	kind tokenKind
	text string
	at   int
}

// is compares with a keyword or operator, whatever the case.
func (t token) is(word string) bool {
	return (t.kind == tokenWord || t.kind == tokenOp) && strings.EqualFold(t.text, word)
}

var operators = []string{"...", "..", "==", "!=", "<=", ">=", "=~", "!~", "&&", "||", "::",
	"<", ">", "=", "!", "?", ":", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", "."}

func lex(query string) ([]token, error) {
	var out []token
	for i := 0; i < len(query); {
		c := query[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case strings.HasPrefix(query[i:], "//"):
			for i < len(query) && query[i] != '\n' {
				i++
			}
		case strings.HasPrefix(query[i:], "/*"):
			end := strings.Index(query[i:], "*/")
			if end < 0 {
				return nil, &ParseError{"syntax error, unexpected unterminated multi-line comment"}
			}
			i += end + 2
		case c == '"' || c == '\'' || c == '`':
			text, next, err := quoted(query, i)
			if err != nil {
				return nil, err
			}
			kind := tokenString
			if c == '`' {
				kind = tokenQuoted
			}
			out = append(out, token{kind, text, i})
			i = next
		case c >= '0' && c <= '9':
			end := numberEnd(query, i)
			out = append(out, token{tokenNumber, query[i:end], i})
			i = end
		case c == '@':
			start, kind := i+1, tokenBind
			if strings.HasPrefix(query[i:], "@@") {
				start, kind = i+2, tokenCollection
			}
			end := wordEnd(query, start)
			out = append(out, token{kind, query[start:end], i})
			i = end
		case isWord(c):
			end := wordEnd(query, i)
			out = append(out, token{tokenWord, query[i:end], i})
			i = end
		default:
			op := ""
			for _, o := range operators {
				if strings.HasPrefix(query[i:], o) {
					op = o
					break
				}
			}
			if op == "" {
				return nil, &ParseError{fmt.Sprintf("syntax error, unexpected character '%c' at position %d", c, i)}
			}
			out = append(out, token{tokenOp, op, i})
			i += len(op)
		}
	}
	return append(out, token{tokenEnd, "end of query string", len(query)}), nil
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func wordEnd(s string, i int) int {
	for i < len(s) && isWord(s[i]) {
		i++
	}
	return i
}

// numberEnd leaves ".." of a range alone.
func numberEnd(s string, i int) int {
	digits := func() {
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
	}
	digits()
	if i+1 < len(s) && s[i] == '.' && s[i+1] >= '0' && s[i+1] <= '9' {
		i++
		digits()
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		digits()
	}
	return i
}

var escapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f'}

func quoted(s string, i int) (string, int, error) {
	quote := s[i]
	var out []byte
	for i++; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return string(out), i + 1, nil
		case s[i] == '\\' && i+1 < len(s):
			i++
			if plain, ok := escapes[s[i]]; ok {
				out = append(out, plain)
			} else {
				out = append(out, s[i])
			}
		default:
			out = append(out, s[i])
		}
	}
	return "", 0, &ParseError{"syntax error, unexpected unterminated string literal"}
}
