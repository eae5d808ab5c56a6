package etcd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// item is a key with its value and lease (0: none).
type item struct {
	key, value string
	lease      int64
}

// grant is a lease with a chosen ID and its time to live in seconds.
type grant struct{ id, ttl int64 }

// content is all that Fill writes besides users and roles.
type content struct {
	items  []item
	grants []grant
}

// bookkeeping is the product's own corner of the key space: neither filled,
// wrecked nor judged.
const bookkeeping = "/cso-backup/"

// bookkeepingLeases is the upper half of the ids of the product's own leases, which hold no data.
const bookkeepingLeases = 0x63736f62

// makeContent gives equal content for equal seeds.
func makeContent(seed int64, size string) content {
	r := rand.New(rand.NewPCG(uint64(seed), 0xe7cd))
	var c content
	c.items = append(c.items, item{key: maintenanceKey, value: "false"})
	services, sites, sessions := 40, 30, 1000
	if size == "large" {
		services, sites, sessions = 4000, 12000, 5000
	}
	for i := range services {
		name := fmt.Sprintf("csp.%s-%04d", pick(r, "iamsvc", "topo", "fmpm", "vnfm", "cslm", "jobsvc"), i)
		for n := range 1 + r.IntN(3) {
			c.add(fmt.Sprintf("/registry/services/%s/instances/%d", name, n),
				fmt.Sprintf(`{"host":"10.%d.%d.%d","port":%d,"weight":%d,"state":"UP"}`, r.IntN(256), r.IntN(256), r.IntN(256), 1024+r.IntN(60000), r.IntN(100)))
		}
		c.add("/cso/config/"+name+"/log_level", pick(r, "INFO", "DEBUG", "WARN"))
		c.add("/cso/config/"+name+"/database.yaml", "host: cspdb\nport: 3306\npool:\n  size: "+fmt.Sprint(1+r.IntN(64))+"\n")
	}
	for i := range sites {
		site := fmt.Sprintf("/cso/tenants/%08x-%04x/sites/%06d", r.Uint32(), r.IntN(1<<16), i)
		for d := range 15 {
			c.add(fmt.Sprintf("%s/devices/%02d", site, d), fmt.Sprintf(`{"serial":"%012x","model":"%s","wan":[%s],"note":"%s"}`,
				r.Int64N(1<<48), pick(r, "SRX320", "SRX345", "NFX150", "NFX250", "vSRX"), pick(r, "0,1", "0", "0,1,2,3"), strings.Repeat("x", r.IntN(120))))
		}
	}
	c.leases(r, sessions)
	c.awkward(r)
	return c
}

func (c *content) add(key, value string) { c.items = append(c.items, item{key: key, value: value}) }

// leases: one with many keys, some with few, some with none, and the limits of ID and TTL.
// All live for hours, so that a lab's fingerprint stays the same meanwhile.
func (c *content) leases(r *rand.Rand, sessions int) {
	many := grant{r.Int64N(math.MaxInt64-1) + 1, 86400}
	c.grants = append(c.grants, many, grant{1, 14400}, grant{math.MaxInt64, 9_000_000_000})
	for i := range sessions {
		c.items = append(c.items, item{fmt.Sprintf("/cso/sessions/%08x-%06d", r.Uint32(), i), fmt.Sprintf("user-%d", r.IntN(1000)), many.id})
	}
	for i := range 20 {
		g := grant{r.Int64N(math.MaxInt64-1) + 1, 7200 + r.Int64N(100000)}
		c.grants = append(c.grants, g)
		for n := range i % 5 {
			c.items = append(c.items, item{fmt.Sprintf("/cso/locks/%02d/%d", i, n), fmt.Sprint(r.Int64()), g.id})
		}
	}
	c.items = append(c.items, item{"\x00leased\xff\xfe", "\x00", math.MaxInt64})
}

// awkward: what careless tools lose.
func (c *content) awkward(r *rand.Rand) {
	c.add("\x00", "the lowest key")
	c.add("\xff\xff\xff\xff", "the highest prefix")
	c.add("a", "")
	c.add("/awkward/empty", "")
	c.add("/awkward/newline\nand\ttab", "line 1\nline 2\r\n\x00")
	c.add("/awkward/ünïcode/数据/🗝", "välue 🌍")
	c.add("/awkward/invalid-utf8/\xc3\x28\xa0\xff", "\xc3\x28\x80\xfe\xff")
	c.add("/awkward/all-bytes", allBytes())
	c.add("/awkward/key-is-binary/"+allBytes(), "v")
	c.add("/awkward/long-key/"+strings.Repeat("k", 8192), "v")
	c.add("/awkward/trailing/", "with slash")
	c.add("/awkward/trailing", "without slash")
	c.add("/awkward//double//slash", "v")
	c.add("/awkward/space ", " v ")
	c.add("/awkward/quote\"'`;--", `"'`)
	c.add("/awkward/json", `{"a":1.0000000000000001,"b":"\u0000"}`)
	c.add("/awkward/base64ish", "AAECAwQ=")
	c.add("/awkward/1.4MB", randomBytes(r, 1_400_000))
	c.add("/awkward/1MB-zeros", strings.Repeat("\x00", 1_000_000))
	for n := range 12 {
		c.add(fmt.Sprintf("/awkward/100k/%02d", n), randomBytes(r, 100_000))
	}
	for n := range 40 {
		c.add("/awkward/random/"+randomBytes(r, 1+r.IntN(40))+fmt.Sprint(n), randomBytes(r, r.IntN(300)))
	}
}

func pick(r *rand.Rand, choices ...string) string { return choices[r.IntN(len(choices))] }

func allBytes() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func randomBytes(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}
