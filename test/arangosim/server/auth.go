package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// userCache holds the documents of _users by name, until one of them changes.
type userCache struct {
	mu    sync.Mutex
	users map[string]*value.Object
}

func (u *userCache) forget() {
	u.mu.Lock()
	u.users = nil
	u.mu.Unlock()
}

// account answers the document of a user, nil when there is none.
func (s *Server) account(name string) *value.Object {
	s.users.mu.Lock()
	defer s.users.mu.Unlock()
	if s.users.users == nil {
		all := map[string]*value.Object{}
		err := s.store.View(func(tx *store.Tx) error {
			c := tx.Collection(tx.Database(store.SystemDatabase), "_users")
			tx.Each(c, func(doc []byte) bool {
				o := value.MustObject(doc)
				all[o.String("user")] = o
				return true
			})
			return nil
		})
		if err != nil {
			return nil
		}
		s.users.users = all
	}
	return s.users.users[name]
}

// hashPassword makes what _users keeps of a password.
func hashPassword(password string) *value.Object {
	salt := rand.Text()[:8]
	return value.New("hash", digest(salt, password), "salt", salt, "method", "sha256")
}

func digest(salt, password string) string {
	sum := sha256.Sum256([]byte(salt + password))
	return hex.EncodeToString(sum[:])
}

// checkPassword compares with what _users keeps; it accepts only active users.
func (s *Server) checkPassword(user, password string) bool {
	auth := s.account(user).Object("authData")
	simple := auth.Object("simple")
	if simple == nil || !auth.Bool("active", true) {
		return false
	}
	return hmac.Equal([]byte(simple.String("hash")), []byte(digest(simple.String("salt"), password)))
}

var errUnauthorized = &Error{Code: 401, Num: 11, Message: "not authorized to execute this request"}

// authenticate finds out who asks.
func (r *request) authenticate() error {
	if !r.cfg.Auth {
		r.user, r.super = "root", true
		return nil
	}
	kind, rest, _ := strings.Cut(r.http.Header.Get("Authorization"), " ")
	switch strings.ToLower(kind) {
	case "basic":
		if user, password, ok := r.http.BasicAuth(); ok && r.checkPassword(user, password) {
			r.user = user
			return nil
		}
	case "bearer":
		if user, ok := r.checkToken(rest); ok {
			r.user, r.super = user, user == ""
			return nil
		}
	}
	r.w.Header().Set("Www-Authenticate", `Bearer token_type="JWT", realm="ArangoDB"`)
	return errUnauthorized
}

var base64URL = base64.RawURLEncoding

// token signs a JWT for a user, valid for an hour as on the real server.
func (s *Server) token(user string) string {
	now := time.Now().Unix()
	head := base64URL.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))
	claims := value.New("preferred_username", user, "iss", "arangodb", "iat", now, "exp", now+3600)
	signed := head + "." + base64URL.EncodeToString(value.JSON(claims))
	return signed + "." + base64URL.EncodeToString(s.sign(signed))
}

func (s *Server) sign(text string) []byte {
	mac := hmac.New(sha256.New, s.jwtKey)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// checkToken answers the token's user, "" for a token of the server itself.
func (s *Server) checkToken(token string) (string, bool) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return "", false
	}
	signature, err := base64URL.DecodeString(token[i+1:])
	if err != nil || !hmac.Equal(signature, s.sign(token[:i])) {
		return "", false
	}
	_, payload, _ := strings.Cut(token[:i], ".")
	text, err := base64URL.DecodeString(payload)
	if err != nil {
		return "", false
	}
	claims, err := value.ParseObject(text)
	if err != nil || claims.Has("exp") && claims.Int("exp", 0) < time.Now().Unix() {
		return "", false
	}
	user := claims.String("preferred_username")
	if user == "" {
		return "", claims.Has("server_id")
	}
	account := s.account(user)
	return user, account != nil && account.Object("authData").Bool("active", true)
}

// openAuth is POST /_open/auth.
func openAuth(r *request, o *value.Object) error {
	if r.cfg.Auth && !r.checkPassword(o.String("username"), o.String("password")) {
		return &Error{Code: 401, Num: 401, Message: "Wrong credentials"}
	}
	return r.reply(200, value.New("jwt", r.token(o.String("username"))))
}

// authorize checks the route's demand.
func (r *request) authorize(rt *route) error {
	switch rt.access {
	case readDB, writeDB:
		return r.allowed(r.db, "", rt.access)
	case admin:
		return r.allowed(store.SystemDatabase, "", writeDB)
	}
	return nil
}

// allowed checks the grants: no access to a database is 401, too little access 403.
func (r *request) allowed(db, collection string, level access) error {
	if r.super {
		return nil
	}
	have := r.level(r.user, db, collection)
	switch {
	case have == "none" && collection == "":
		return errUnauthorized
	case have == "none", have == "ro" && level == writeDB:
		return fail(11)
	}
	return nil
}

// level is the effective right of a user: "none", "ro" or "rw". A right on *
// stands for databases and collections without one of their own; users with
// rw on _system administer the server; nobody but the server sees _users in it
// (auth::User::collectionAuthLevel).
func (s *Server) level(user, db, collection string) string {
	if db == store.SystemDatabase && collection == "_users" {
		return "none"
	}
	grants := s.account(user).Object("databases")
	if grants == nil {
		return "none"
	}
	if collection == "" {
		return databaseLevel(grants, db)
	}
	for _, d := range []string{db, "*"} {
		for _, c := range []string{collection, "*"} {
			if p := grants.Object(d).Object("collections").Object(c).Object("permissions"); p != nil && len(p.Members) > 0 {
				return levelOf(p)
			}
		}
	}
	return databaseLevel(grants, db)
}

func databaseLevel(grants *value.Object, db string) string {
	for _, d := range []string{db, "*"} {
		if p := grants.Object(d).Object("permissions"); p != nil && p.Has("read") {
			return levelOf(p)
		}
	}
	return "none"
}

func levelOf(p *value.Object) string {
	switch {
	case p.Bool("write", false):
		return "rw"
	case p.Bool("read", false):
		return "ro"
	case p.Bool("undefined", false):
		return "undefined"
	}
	return "none"
}
