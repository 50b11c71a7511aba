package oracle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var (
	seed  = flag.Uint64("oracle.seed", 1, "which of the generated configurations are taken")
	count = flag.Int("oracle.n", 60, "how many of the generated configurations are taken; 0: all")
)

// matchers tell some clients from others, or do not.
var matchers = []string{
	"remote_ip 127.0.0.2",
	"client_ip 127.0.0.2",
	"not remote_ip 127.0.0.1",
	"header User-Agent insider",
	"header Accept-Language *",
	"header !Accept-Language",
	"header Cookie *session*",
	"header Authorization *",
	"header X-Forwarded-Proto https",
	"header_regexp User-Agent ^ins",
	"query k=*",
	"path /a/*",
	"path_regexp ^/a",
	"not path /a/*",
	"method GET",
	"host 127.0.0.1",
	"protocol http",
	"expression {http.request.header.User-Agent} == 'insider'",
	"expression {http.request.remote.host} == '127.0.0.2'",
	"expression {http.request.cookie.session} == 'alice'",
	"vars {http.request.remote.host} 127.0.0.2",
	"vars_regexp {http.request.header.User-Agent} ^ins",
	"file /members",
	"file /{http.request.header.User-Agent}",
}

// effects are what a site does with the requests that @m matches.
var effects = []string{
	"respond @m \"not here\" 403",
	"respond @m \"not here\"",
	"redir @m /elsewhere",
	"abort @m",
	"error @m 410",
	"vars @m role matched",
	"rewrite @m /rewritten{uri}",
	"uri @m query +added 1",
	"uri @m strip_prefix /a",
	"request_header @m X-Site matched",
	"request_header @m Accept-Language site-matched",
	"request_header @m -Accept-Language",
	"request_header @m User-Agent insider",
	"method @m POST",
	"reverse_proxy @m PRIV",
	"handle @m {\nreverse_proxy PRIV\n}",
	"route @m {\nvars role routed\nrewrite * /routed\n}",
	"invoke @m private_N",
	"forward_auth @m PUB {\nuri /auth\ncopy_headers X-Role\n}",
	"basic_auth @m {\nalice $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}",
	"root @m ROOT/a",
	"header @m X-Served matched",
	"request_body @m {\nmax_size 1KB\n}",
}

// maps give a placeholder its value.
var sources = []string{"{path}", "{header.User-Agent}", "{remote_host}", "{header.Accept-Language}", "{query.k}", "{cookie.session}"}

const (
	private = "&(private_N) {\nreverse_proxy PRIV\n}\n"
	proxy   = "reverse_proxy PUB {\nheader_up X-Role {vars.role}\n}\n"
	proxies = "servers 127.0.0.1:PORT {\ntrusted_proxies static 127.0.0.9\n}"
)

// generate returns all pairs of a matcher and an effect, in front of the line and
// behind it, and around it; and reloads that add, remove or change each.
func generate() []template {
	var all []template
	add := func(name, sites, after string) {
		t := template{name: name, global: proxies, sites: private + site + sites + "}"}
		if after != "" {
			t.after = private + site + after + "}"
		}
		all = append(all, t)
	}
	root := "root ROOT\n"
	in := func(lines ...string) string { return root + "route {\n" + strings.Join(lines, "\n") + "\n}\n" }
	bare := in("SHARE", proxy)
	for _, m := range matchers {
		named := "@m " + m
		for _, e := range effects {
			front, behind := in(named, e, "SHARE", proxy), in("SHARE", named, e, proxy)
			what := fmt.Sprintf("%q by %q", e, m)
			add(what+" in front", front, "")
			add(what+" behind", behind, "")
			add(what+" put in front by a reload", bare, front)
			add(what+" taken from the front by a reload", front, bare)
			add(what+" put behind by a reload", bare, behind)
		}
		blocks := in(named, "handle @m {\nSHARE\nreverse_proxy PRIV\n}\nhandle {\nSHARE\nreverse_proxy PUB\n}")
		swapped := in(named, "handle @m {\nSHARE\nreverse_proxy PUB\n}\nhandle {\nSHARE\nreverse_proxy PRIV\n}")
		add(fmt.Sprintf("two blocks by %q", m), blocks, "")
		add(fmt.Sprintf("two blocks by %q, swapped by a reload", m), blocks, swapped)
		add(fmt.Sprintf("two blocks by %q, made by a reload", m), bare, blocks)
		add(fmt.Sprintf("one of two blocks by %q", m), in(named, "handle @m {\nSHARE\nreverse_proxy PRIV\n}\nhandle {\nreverse_proxy PUB\n}"), "")
		add(fmt.Sprintf("the other of two blocks by %q", m), in(named, "handle @m {\nreverse_proxy PRIV\n}\nhandle {\nSHARE\nreverse_proxy PUB\n}"), "")
	}
	for _, source := range sources {
		mapped := "map " + source + " {flavor} {\n/a/events sweet\ninsider sweet\n127.0.0.2 sweet\nde sweet\n1 sweet\nalice sweet\ndefault sour\n}"
		flavored := "reverse_proxy PUB {\nheader_up X-Flavor {flavor}\n}"
		led := "@sweet vars {flavor} sweet\nreverse_proxy @sweet PRIV"
		add("a map of "+source, in(mapped, "SHARE", flavored), "")
		add("a map of "+source+" that leads elsewhere", in(mapped, led, "SHARE", flavored), "")
		add("a map of "+source+" that leads elsewhere behind", in(mapped, "SHARE", led, flavored), "")
		add("a map of "+source+" by a reload", in("SHARE", flavored), in(mapped, "SHARE", led, flavored))
	}
	return all
}

func TestGenerated(t *testing.T) {
	all := generate()
	if *count > 0 && *count < len(all) {
		t.Logf("%d of %d configurations, -oracle.seed=%d", *count, len(all), *seed)
		random := rand.New(rand.NewPCG(*seed, 0)) //nolint:gosec // to be repeated
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:*count]
	}
	const atOnce = 40
	for len(all) > 0 {
		n := min(atOnce, len(all))
		judge(t, all[:n])
		all = all[n:]
	}
}
