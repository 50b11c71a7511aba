package ssefanout

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// theHandler returns the only handler of the wrapping form that is in use.
func theHandler(t *testing.T) *instance {
	t.Helper()
	var found []*instance
	lineages.Range(func(_, value any) bool {
		l := value.(*lineage)
		l.mu.Lock()
		defer l.mu.Unlock()
		found = append(found, l.handlers...)
		return true
	})
	if len(found) != 1 {
		t.Fatalf("there are %d handlers, want 1", len(found))
	}
	return found[0]
}

// port returns that of a site's unencrypted address.
func port(s *liveSite) string { return strconv.Itoa(s.http) }

// Whatever can tell one client from another behind the handler keeps it from
// sharing, for the shared request would be led where not all clients are.
func TestWhatStandsBehindDecidesWhetherToShare(t *testing.T) {
	const origin = "127.0.0.1:9"
	for _, tc := range []struct {
		name    string
		options string
		behind  string
		want    string // the matcher that keeps it from sharing, "" if it shares
	}{
		{name: "nothing but the origin", behind: "reverse_proxy " + origin},
		{name: "path", behind: "reverse_proxy /a/* " + origin + "\nreverse_proxy " + origin},
		{name: "host", behind: "@m host a.example\nreverse_proxy @m " + origin},
		{name: "method", behind: "@m method GET\nreverse_proxy @m " + origin},
		{name: "query", behind: "@m query a=*\nreverse_proxy @m " + origin},
		{name: "path_regexp", behind: "@m path_regexp ^/[a-z]{2,3}$\nreverse_proxy @m " + origin},
		{name: "file", behind: "@m file\nreverse_proxy @m " + origin},
		{name: "protocol https", behind: "@m protocol https\nreverse_proxy @m " + origin},
		{name: "a variable", behind: "@m vars a b\nreverse_proxy @m " + origin},
		{name: "a variable as a placeholder", behind: "@m vars {vars.a} b\nreverse_proxy @m " + origin},
		{name: "vars_regexp", behind: "@m vars_regexp a ^b{2}$\nreverse_proxy @m " + origin},
		{name: "try_files", behind: "try_files {path} /index.html\nreverse_proxy " + origin},
		{name: "php_fastcgi", behind: "php_fastcgi " + origin},
		{name: "not path", behind: "@m not path /a\nreverse_proxy @m " + origin},
		{name: "WebSocket", behind: "@m {\nheader Connection *Upgrade*\nheader Upgrade websocket\n}\nreverse_proxy @m " + origin},
		{name: "a header that passes", behind: "@m header Cookie *a=*\nreverse_proxy @m " + origin},
		{name: "a header's absence", behind: "@m header !Cookie\nreverse_proxy @m " + origin},
		{name: "a header that vary names", options: "vary X-Tenant", behind: "@m header X-Tenant a\nreverse_proxy @m " + origin},
		{name: "Host as a header", behind: "@m header Host a\nreverse_proxy @m " + origin},
		{name: "a placeholder of the client for the upstream", behind: "reverse_proxy " + origin + " {\nheader_up X-IP {remote_host}\n}"},
		{name: "a user that vary names", options: "vary {http.auth.user.id}", behind: "reverse_proxy " + origin + " {\nheader_up X-User {http.auth.user.id}\n}"},
		{name: "a field of the log from a placeholder", behind: "log_append a {remote_host}\nreverse_proxy " + origin},
		{name: "an answer's routes at the end", behind: "reverse_proxy " + origin + " {\nhandle_response {\nrespond 200\n}\n}"},
		{name: "PHP with variables", behind: "php_fastcgi " + origin + " {\nenv A b\n}"},
		{name: "nested", behind: "handle /a {\nhandle /a/b {\nreverse_proxy " + origin + "\n}\n}"},

		{name: "remote_ip", behind: "@m remote_ip 127.0.0.2\nreverse_proxy @m " + origin, want: "remote_ip"},
		{name: "client_ip", behind: "@m client_ip 127.0.0.2\nreverse_proxy @m " + origin, want: "client_ip"},
		{name: "a harmless header", behind: "@m header User-Agent *Mobile*\nreverse_proxy @m " + origin, want: "header"},
		{name: "the absence of a harmless header", behind: "@m header !User-Agent\nreverse_proxy @m " + origin, want: "header"},
		{name: "a stripped header", options: "credentials strip", behind: "@m header Cookie *a=*\nreverse_proxy @m " + origin, want: "header"},
		{name: "header_regexp", behind: "@m header_regexp User-Agent Mobile\nreverse_proxy @m " + origin, want: "header_regexp"},
		{name: "expression", behind: "@m `path('/a')`\nreverse_proxy @m " + origin, want: "expression"},
		{name: "protocol h2", behind: "@m protocol http/2+\nreverse_proxy @m " + origin, want: "protocol"},
		{name: "not remote_ip", behind: "@m not remote_ip 127.0.0.2\nreverse_proxy @m " + origin, want: "not"},
		{name: "not within not", behind: "@m {\nnot {\nnot remote_ip 127.0.0.2\n}\n}\nreverse_proxy @m " + origin, want: "not"},
		{name: "Caddy's own variable", behind: "@m vars client_ip 127.0.0.2\nreverse_proxy @m " + origin, want: "vars"},
		{name: "Caddy's own variable as a placeholder", behind: "@m vars {vars.client_ip} 127.0.0.2\nreverse_proxy @m " + origin, want: "vars"},
		{name: "a placeholder of the client", behind: "@m vars {http.request.remote.host} 127.0.0.2\nreverse_proxy @m " + origin, want: "vars"},
		{name: "a placeholder in a path", behind: "@m path /{header.User-Agent}\nreverse_proxy @m " + origin, want: "path"},
		{name: "a placeholder in a file", behind: "@m file {header.User-Agent}\nreverse_proxy @m " + origin, want: "file"},
		{name: "a variable from a placeholder", behind: "vars ip {remote_host}\n@m vars ip 127.0.0.2\nrespond @m 403\nreverse_proxy " + origin, want: "vars"},
		{name: "a rewrite by a placeholder", behind: "rewrite * /{remote_host}\nreverse_proxy " + origin, want: "rewrite"},
		{name: "a map of a placeholder", behind: "map {remote_host} {x} {\na b\n}\n@m vars {x} b\nreverse_proxy @m " + origin, want: "map"},
		{name: "a request header from a placeholder", behind: "request_header X-A {remote_host}\nreverse_proxy " + origin, want: "headers"},
		{name: "an upstream from a placeholder", behind: "reverse_proxy {http.reverse_proxy.header.X-Up}", want: "reverse_proxy"},
		{name: "what forward_auth has found", behind: "reverse_proxy " + origin + " {\nheader_up X-Tenant {rp.header.X-Tenant}\n}", want: "reverse_proxy"},
		{name: "a capture", behind: "reverse_proxy " + origin + " {\nheader_up X-A {re.a.1}\n}", want: "reverse_proxy"},
		{name: "a proxy of its own that it trusts", behind: "reverse_proxy " + origin + " {\ntrusted_proxies 127.0.0.0/8\n}", want: "reverse_proxy"},
		{name: "a response header from a placeholder", behind: "header X-A {remote_host}\nreverse_proxy " + origin, want: "headers"},
		{name: "a response header of the proxy", behind: "reverse_proxy " + origin + " {\nheader_down X-A {remote_host}\n}", want: "reverse_proxy"},
		{name: "upstreams by name", behind: "reverse_proxy {\ndynamic a {header.CF-IPCountry}.example 80\n}", want: "reverse_proxy"},
		{name: "upstreams of several kinds", behind: "reverse_proxy {\ndynamic multi {\na {header.CF-IPCountry}.example 80\n}\n}", want: "reverse_proxy"},
		{name: "upstreams of several kinds, by path", behind: "reverse_proxy {\ndynamic multi {\na {path.1}.example 80\n}\n}", want: ""},
		{name: "a proxy's rewrite", behind: "reverse_proxy " + origin + " {\nrewrite /{remote_host}\n}", want: "reverse_proxy"},
		{name: "FastCGI's root", behind: "reverse_proxy " + origin + " {\ntransport fastcgi {\nroot /srv/{header.DNT}\n}\n}", want: "reverse_proxy"},
		{name: "FastCGI's variables", behind: "php_fastcgi " + origin + " {\nenv SCRIPT_FILENAME /srv/{header.DNT}\n}", want: "reverse_proxy"},
		{name: "an answer from a placeholder", behind: "respond {remote_host}", want: "static_response"},
		{name: "templates", behind: "templates {\nmime text/event-stream\n}\nreverse_proxy " + origin, want: "templates"},
		{name: "forward_auth", behind: "forward_auth " + origin + " {\nuri /auth\n}\nreverse_proxy " + origin, want: "reverse_proxy"},
		{name: "nested remote_ip", behind: "handle /a {\n@m remote_ip 127.0.0.2\nreverse_proxy @m " + origin + "\n}\nreverse_proxy " + origin, want: "remote_ip"},
		{name: "in a named route", behind: "invoke r", want: "remote_ip"},
		{name: "in an answer's routes", behind: "reverse_proxy " + origin + " {\nhandle_response {\n@m remote_ip 127.0.0.2\nrespond @m 200\n}\n}", want: "remote_ip"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			s.loadSites("&(r) {\n@m remote_ip 127.0.0.2\nreverse_proxy @m " + origin + "\n}\n" +
				"http://127.0.0.1:" + port(s) + " {\nroute {\nsse_fanout {\n" + tc.options + "\n}\n" + tc.behind + "\n}\n}")
			got := theHandler(t).surroundings().Never
			switch {
			case tc.want == "" && got != "":
				t.Errorf("shares nothing: %s", got)
			case tc.want != "" && !strings.HasSuffix(got, ": "+tc.want) && !strings.HasSuffix(got, "."+tc.want):
				t.Errorf("got %q, want a word on %s", got, tc.want)
			}
		})
	}
}

// What excludes itself from the way behind does not matter.
func TestWhatIsNeverReachedBehind(t *testing.T) {
	const origin = "127.0.0.1:9"
	for name, directives := range map[string]string{
		"another handle block": "handle /a {\nsse_fanout\nreverse_proxy " + origin + "\n}\n" +
			"@m remote_ip 127.0.0.2\nhandle @m {\nreverse_proxy " + origin + "\n}",
		"what others get":      "handle {\nsse_fanout\nreverse_proxy " + origin + "\n}\n@m remote_ip 127.0.0.2\nrespond @m 403",
		"what a block answers": "route {\nsse_fanout\nrespond hello\n@m remote_ip 127.0.0.2\nreverse_proxy @m " + origin + "\n}",
		"errors": "handle {\nsse_fanout\nreverse_proxy " + origin + "\n}\n" +
			"handle_errors {\n@m remote_ip 127.0.0.2\nrespond @m 200\n}",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.loadSites("http://127.0.0.1:" + port(s) + " {\n" + directives + "\n}")
			if got := theHandler(t).surroundings().Never; got != "" {
				t.Errorf("shares nothing: %s", got)
			}
		})
	}
}

func TestAHandlerInANamedRouteSharesNothing(t *testing.T) {
	s := newSite(t)
	s.loadSites("&(share) {\nsse_fanout\n}\nhttp://127.0.0.1:" + port(s) + " {\nroute {\ninvoke share\nreverse_proxy 127.0.0.1:9\n}\n}")
	if got := theHandler(t).surroundings().Never; !strings.Contains(got, "named route") {
		t.Errorf("got %q", got)
	}
}

// Over a reload, clients go on without being led anew only where all are led alike,
// or where nothing has changed.
func TestWhatStandsInFrontIsPlainOrHasAPrint(t *testing.T) {
	const tail = "\nsse_fanout\nreverse_proxy 127.0.0.1:9\n"
	for _, tc := range []struct {
		name  string
		front string
		plain bool
		other string // a front with another print
	}{
		{name: "nothing", plain: true, other: "header A b"},
		{name: "what leads all alike", front: "root /srv\nvars a b\nrewrite /a /b\nheader A b\nencode gzip\nmap {path} {x} {\n/a b\n}", plain: true, other: "vars a c"},
		{name: "a variable of the client", front: "vars a {remote_host}", other: "vars a {header.User-Agent}"},
		{name: "a rewrite by the client", front: "rewrite * /{header.Accept-Language}{uri}", other: "rewrite * /{header.User-Agent}{uri}"},
		{name: "a map of the client", front: "map {remote_host} {x} {\na b\n}", other: "map {remote_host} {x} {\na c\n}"},
		{name: "a header of the client", front: "request_header X-A {remote_host}", other: "request_header X-B {remote_host}"},
		{name: "a header that is deleted later", front: "@m header Accept-Language eo\nrewrite @m /a\nrequest_header -Accept-Language", other: "request_header -Accept-Language"},
		{name: "basic_auth", front: "basic_auth {\nalice $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}",
			other: "basic_auth {\nbob $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}"},
		{name: "forward_auth", front: "forward_auth 127.0.0.1:9 {\nuri /auth\n}", other: "forward_auth 127.0.0.1:9 {\nuri /authz\n}"},
		{name: "remote_ip", front: "@m remote_ip 127.0.0.2\nrespond @m 403", other: "@m remote_ip 127.0.0.3\nrespond @m 403"},
		{name: "not remote_ip", front: "@m not remote_ip 127.0.0.2\nrespond @m 403", other: "@m not remote_ip 127.0.0.3\nrespond @m 403"},
		{name: "header", front: "@m header User-Agent a\nrespond @m 403", other: "@m header User-Agent b\nrespond @m 403"},
		{name: "expression", front: "@m `remote_ip('127.0.0.2')`\nrespond @m 403", other: "@m `remote_ip('127.0.0.3')`\nrespond @m 403"},
		{name: "nested", front: "route {\nroute /a {\n@m client_ip 127.0.0.2\nrespond @m 403\n}\n}", other: "route {\nroute /b {\n@m client_ip 127.0.0.2\nrespond @m 403\n}\n}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			load := func(front string) *survey.Surroundings {
				s := newSite(t)
				s.loadSites("http://127.0.0.1:" + port(s) + " {\nroute {\n" + front + tail + "}\n}")
				return theHandler(t).surroundings()
			}
			got, again, other := load(tc.front), load(tc.front), load(tc.other)
			if got.Plain != tc.plain {
				t.Errorf("plain: got %t, want %t", got.Plain, tc.plain)
			}
			if got.Print != again.Print {
				t.Error("the same front has two prints")
			}
			if got.Print == other.Print {
				t.Error("another front has the same print")
			}
		})
	}
}

func TestHeadersThatTheSiteSetsAreCompared(t *testing.T) {
	s := newSite(t)
	s.loadSites("http://127.0.0.1:" + port(s) + " {\nroute {\n" +
		"request_header Accept-Language de\nrequest_header X-Real-IP {remote_host}\nrequest_header -Referer\nrequest_header X-Role a\n" +
		"map {path} {x} {y} {\n/a b c\n}\nsse_fanout\nreverse_proxy 127.0.0.1:9\n}\n}")
	around := theHandler(t).surroundings()
	if got := strings.Join(around.Headers, " "); got != "Accept-Language Referer X-Role" {
		t.Errorf("compared are the headers %s", got)
	}
	if got := strings.Join(around.Maps, " "); got != "x y" {
		t.Errorf("compared are the placeholders %s", got)
	}
}

// Whom the server trusts to tell who the client is decides what matchers in front say.
func TestWhomAServerTrustsAndAdmits(t *testing.T) {
	s := newSite(t)
	cert, key := filepath.Join(s.directory, "cert"), filepath.Join(s.directory, "key")
	type terms struct{ trust, auth string }
	seen := map[string]terms{}
	for _, tc := range []terms{
		{}, {trust: "trusted_proxies static 127.0.0.4"}, {trust: "trusted_proxies static 127.0.0.5"},
		{trust: "trusted_proxies static private_ranges"},
		{trust: "strict_sni_host on"},
		{trust: "listener_wrappers {\nproxy_protocol {\nallow 127.0.0.0/8\n}\n}"},
		{trust: "listener_wrappers {\nproxy_protocol {\nallow 127.0.0.1/32\n}\n}"},
		{trust: "trusted_proxies static 127.0.0.4\nclient_ip_headers X-Real-IP"},
		{trust: "trusted_proxies static 127.0.0.4\ntrusted_proxies_strict"},
		{auth: "client_auth {\nmode request\n}"}, {auth: "client_auth {\nmode require\n}"},
		{auth: "client_auth {\nmode require_and_verify\ntrust_pool file CERT\n}"},
		{auth: "client_auth {\nmode require_and_verify\ntrust_pool file CERT CERT\n}"},
	} {
		load := func() string {
			s.options = "servers {\n" + tc.trust + "\n}"
			s.loadSites(fmt.Sprintf("https://127.0.0.1:%d {\ntls %s %s {\n%s\n}\nhandle {\nsse_fanout\nreverse_proxy 127.0.0.1:9\n}\n}",
				s.https, cert, key, strings.ReplaceAll(tc.auth, "CERT", cert)))
			return theHandler(t).surroundings().Terms
		}
		got := load()
		if again := load(); got != again {
			t.Errorf("%q has two hashes", tc)
		}
		if other, found := seen[got]; found {
			t.Errorf("%q has the hash of %q", tc, other)
		}
		seen[got] = tc
	}
}

func TestWhatIsBehindHasAPrint(t *testing.T) {
	load := func(behind string) *survey.Surroundings {
		s := newSite(t)
		s.loadSites("http://127.0.0.1:" + port(s) + " {\nhandle {\nsse_fanout\n" + behind + "\n}\n}\nhttp://other.example:" + port(s) + " {\nrespond " + t.Name() + "\n}")
		return theHandler(t).surroundings()
	}
	const origin = "reverse_proxy 127.0.0.1:9"
	before, again := load(origin), load(origin)
	if !before.SameAs(again) {
		t.Error("the same site has two prints")
	}
	for _, other := range []string{
		"reverse_proxy 127.0.0.1:10",
		"reverse_proxy 127.0.0.1:9 127.0.0.1:10",
		"reverse_proxy 127.0.0.1:9 {\nheader_up X-A b\n}",
		"reverse_proxy 127.0.0.1:9 {\nlb_policy first\n}",
		"reverse_proxy https://127.0.0.1:9",
		"rewrite /a\n" + origin,
		"@a path /a\nreverse_proxy @a 127.0.0.1:9",
		"respond 127.0.0.1:9",
		"php_fastcgi 127.0.0.1:9",
	} {
		if after := load(other); before.SameAs(after) {
			t.Errorf("%q has the print of %q", other, origin)
		}
	}
}
