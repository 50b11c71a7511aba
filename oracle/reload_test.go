package oracle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// quickly makes streams of a configuration that is gone end while somebody looks.
const quickly = `sse_fanout {
	stream_close_delay 100ms
}`

// reloads are changes of the configuration while clients are connected.
var reloads = []*testcase{
	{
		name:   "fault 3: access control and another origin",
		traits: []string{"authorization", "address"},
		config: site(`
	request_header -Authorization
	SHARE
	reverse_proxy PUBLIC`),
		after: site(`
	basic_auth {
		` + alice + `
	}
	request_header -Authorization
	SHARE
	reverse_proxy PRIVATE`),
	},
	{
		name:   "fault 3: access control by address, and another origin",
		traits: []string{"address"},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
		after: site(`
	@outside not remote_ip 127.0.0.2
	respond @outside 403
	SHARE
	reverse_proxy PRIVATE`),
	},
	{
		name:   "nothing has changed",
		traits: []string{"address"},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
		after: site(`
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "nothing has changed, and the origin greets each connection",
		traits: []string{"address", "language", "agent"},
		config: site("\tSHARE\n\treverse_proxy GREETER"),
		after:  site("\tSHARE\n\treverse_proxy GREETER"),
	},
	{
		name:   "another origin",
		traits: []string{"address"},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
		after: site(`
	SHARE
	reverse_proxy PRIVATE`),
	},
	{
		name:   "blocks are swapped",
		traits: []string{"path", "address"},
		config: site(`
	handle /inside/* {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}`),
		after: site(`
	handle /inside/* {
		SHARE
		reverse_proxy PUBLIC
	}
	handle {
		SHARE
		reverse_proxy PRIVATE
	}`),
	},
	{
		name:   "blocks change places",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	handle @inside {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}`),
		after: site(`
	@inside not remote_ip 127.0.0.2
	handle @inside {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "the site is gone",
		traits: []string{"address"},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
		after: "http://:PORT2 {\n\trespond \"another\"\n}\n",
	},
	{
		name:   "the site answers with a page",
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after:  site("\trespond \"closed\" 410"),
	},
	{
		name:   "the line is removed",
		traits: []string{"address"},
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after:  site("\treverse_proxy PRIVATE"),
	},
	{
		name:   "the line is added",
		traits: []string{"address"},
		config: site("\treverse_proxy PRIVATE"),
		after:  site("\tSHARE\n\treverse_proxy PUBLIC"),
	},
	{
		name:   "a matcher behind",
		traits: []string{"language"},
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after: site(`
	@inside header Accept-Language eo
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "a variable that is used behind",
		traits: []string{"address"},
		config: site(`
	vars tier silver
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Tier {vars.tier}
	}`),
		after: site(`
	vars tier gold
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Tier {vars.tier}
	}`),
	},
	{
		name:   "a variable of the client in front",
		traits: []string{"address"},
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after: site(`
	vars who {http.request.remote.host}
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Who {vars.who}
	}`),
	},
	{
		name:   "rewrite by language in front",
		traits: []string{"language"},
		config: site(`
	uri query version 1
	request_header -Accept-Language
	SHARE
	reverse_proxy PUBLIC`),
		after: site(`
	@inside header Accept-Language eo
	rewrite @inside /private{uri}
	uri query version 2
	request_header -Accept-Language
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "blocks by address around it",
		traits: []string{"address"},
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after: site(`
	@inside remote_ip 127.0.0.2
	handle @inside {
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC {
			header_up X-Site-Block outside
		}
	}`),
	},
	{
		name:   "access control behind",
		traits: []string{"address"},
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after: site(`
	route {
		SHARE
		forward_auth AUTH {
			uri /check?by=address
		}
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "rewrite to what others ask for",
		traits: []string{"path"},
		config: site("\tSHARE\n\treverse_proxy PUBLIC"),
		after: site(`
	rewrite /inside/* /events?{query}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name: "one of two proxies is no longer trusted, and another origin",
		clients: []identity{traits["forwarded"].insider, with("behind the other proxy", func(id *identity) {
			id.from = "127.0.0.9"
			id.header["X-Forwarded-For"] = "10.1.2.4"
		})},
		config: trusting(trustedProxy+" 127.0.0.9") + site(`
	@proxy client_ip 127.0.0.9
	respond @proxy 403
	SHARE
	reverse_proxy PUBLIC`),
		after: trusting(trustedProxy) + site(`
	@proxy client_ip 127.0.0.9
	respond @proxy 403
	SHARE
	reverse_proxy PRIVATE`),
	},
	{
		name: "one of two proxies is no longer trusted for what it says of host and scheme",
		clients: []identity{proxied, with("behind the other proxy", func(id *identity) {
			id.from = "127.0.0.9"
			id.header = maps.Clone(proxied.header)
		})},
		config: trusting(trustedProxy+" 127.0.0.9") + site("\tSHARE\n\treverse_proxy PUBLIC"),
		after:  trusting(trustedProxy) + site("\tSHARE\n\treverse_proxy PRIVATE"),
	},
	{
		name:   "another site for the same host",
		traits: []string{"host"},
		config: "http://site.test:PORT, http://inside.test:PORT {\n\tSHARE\n\treverse_proxy PUBLIC\n}\n",
		after: `http://site.test:PORT {
	SHARE
	reverse_proxy PUBLIC
}
http://inside.test:PORT {
	SHARE
	reverse_proxy PRIVATE
}
`,
	},
}

// TestReload changes the configuration while clients are connected.
func TestReload(t *testing.T) {
	check(t, inBothPaces(reloads))
}

// inBothPaces returns each case twice: streams that end after a reload may do so
// long after the test, or soon.
func inBothPaces(cases []*testcase) []*testcase {
	var both []*testcase
	for _, c := range cases {
		quick := *c
		quick.name += ", streams end soon"
		quick.line = quickly
		both = append(both, c, &quick)
	}
	return both
}

// changed returns a recipe that differs from r in one thing.
func (r *recipe) changed(rng *rand.Rand) (other *recipe, what string) {
	fresh := randomRecipe(rng)
	c := &recipe{r.wrapper, slices.Clone(r.fronts), r.behind}
	switch rng.IntN(6) {
	case 0:
		c.wrapper = fresh.wrapper
		return c, "put into " + c.wrapper.String()
	case 1:
		c.behind = fresh.behind
		return c, "then " + c.behind.String()
	case 2:
		if len(c.fronts) > 0 {
			i := rng.IntN(len(c.fronts))
			gone := c.fronts[i]
			c.fronts = slices.Delete(c.fronts, i, i+1)
			return c, "without " + gone.String()
		}
	}
	few := []string{pick(rng, traitNames), pick(rng, anonymous)}
	added := choose(rng, fronts, few)
	c.fronts = slices.Insert(c.fronts, rng.IntN(len(c.fronts)+1), added)
	return c, "then with " + added.String()
}

// TestGeneratedReload changes one thing of a generated site while clients are
// connected. In every third case, origins change their places as well.
func TestGeneratedReload(t *testing.T) {
	n := max(1, *configs/2)
	recipes, _ := generate(n, *seed+1)
	rng := rand.New(rand.NewPCG(*seed, 1))
	t.Logf("seed %d, %d configurations", *seed, n)
	var cases []*testcase
	for i, r := range recipes {
		other, what := r.changed(rng)
		c := reloadOf(r, other)
		c.name = fmt.Sprintf("%d: %s; %s", i, r.name(), what)
		if i%3 == 0 {
			c.after = strings.NewReplacer("PUBLIC", "PRIVATE", "PRIVATE", "PUBLIC").Replace(c.after)
		}
		if i%2 == 0 {
			c.line = quickly
		}
		cases = append(cases, c)
	}
	check(t, cases)
}

func reloadOf(before, after *recipe) *testcase {
	c, then := before.testcase(""), after.testcase("")
	c.after = then.config
	c.shares, c.simpler = false, nil
	for _, name := range then.traits {
		if !slices.Contains(c.traits, name) {
			c.traits = append(c.traits, name)
		}
	}
	return c
}
