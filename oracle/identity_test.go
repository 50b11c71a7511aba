package oracle

import (
	"net/http"
	"strings"
)

// An identity is a client, as a site can tell it from others.
type identity struct {
	name     string
	from     string // the address that it connects from
	method   string
	host     string
	path     string
	query    string
	header   map[string]string
	protocol string // h1, h2
	cert     bool   // shows a client certificate, if the site is asked over TLS

	secondPort bool // comes to PORT2 instead of PORT
}

// A request as it would be typed, for messages.
func (id identity) String() string {
	b := new(strings.Builder)
	b.WriteString(id.name)
	b.WriteString(" (from " + id.from)
	if id.method != http.MethodGet {
		b.WriteString(", " + id.method)
	}
	if id.protocol != "h1" {
		b.WriteString(", " + id.protocol)
	}
	if id.cert {
		b.WriteString(", with a certificate")
	}
	for name, value := range id.header {
		b.WriteString(", " + name + ": " + value)
	}
	b.WriteString(")")
	return b.String()
}

// with returns the identity that change makes of the plain one.
func with(name string, change func(*identity)) identity {
	id := identity{
		name:     name,
		from:     "127.0.0.1",
		method:   http.MethodGet,
		host:     "site.test",
		path:     "/events",
		protocol: "h1",
		header:   map[string]string{"Accept": "text/event-stream"},
	}
	change(&id)
	return id
}

func withHeader(name, field, value string) identity {
	return with(name, func(id *identity) { id.header[field] = value })
}

// Nobody in particular, from two addresses.
var (
	plain   = with("plain", func(*identity) {})
	another = with("another", func(id *identity) { id.from = "127.0.0.3" })
)

// A trait is what a site can tell clients apart by.
type trait struct {
	insider  identity // a client that has it; plain has not
	matchers []string // that are true for the insider, and for plain are not
	values   []string // placeholders that have different values for the two
	insiders string   // the value that they have for the insider, as a regular expression

	// shared is set if requests that differ in it are different streams anyway.
	shared bool

	// asks is how an application that forward_auth asks finds out.
	asks func(*http.Request) bool
}

func hasHeader(name, value string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.Contains(r.Header.Get(name), value) }
}

var traits = map[string]trait{
	"address": {
		insider: with("insider by address", func(id *identity) { id.from = "127.0.0.2" }),
		matchers: []string{
			"remote_ip 127.0.0.2",
			"expression `remote_ip('127.0.0.2')`",
			"expression `{http.request.remote.host} == '127.0.0.2'`",
			"vars {http.request.remote.host} 127.0.0.2",
			"not remote_ip 127.0.0.1 127.0.0.3 127.0.0.4 192.0.2.0/24",
		},
		values: []string{"{http.request.remote.host}"}, insiders: `127\.0\.0\.2`,
		asks: hasHeader("X-Forwarded-For", "127.0.0.2"),
	},
	"forwarded": {
		insider: with("insider behind a trusted proxy", func(id *identity) {
			id.from = trustedProxy
			id.header["X-Forwarded-For"] = "10.1.2.3"
		}),
		matchers: []string{
			"client_ip 10.0.0.0/8",
			"expression `client_ip('10.0.0.0/8')`",
			"vars {client_ip} 10.1.2.3",
			"header X-Forwarded-For 10.*",
		},
		values: []string{"{client_ip}"}, insiders: `10\..*`,
		asks: hasHeader("X-Forwarded-For", "10.1.2.3"),
	},
	"forged": {
		insider: with("insider by forged headers", func(id *identity) {
			id.header["X-Forwarded-For"] = "10.1.2.3"
			id.header["X-Forwarded-Proto"] = "https"
		}),
		matchers: []string{
			"header X-Forwarded-Proto https",
			"header X-Forwarded-For 10.*",
		},
		values: []string{"{header.X-Forwarded-Proto}"}, insiders: "https",
	},
	"cookie": {
		insider: withHeader("insider by cookie", "Cookie", "role=insider"),
		matchers: []string{
			"header Cookie *role=insider*",
			"header_regexp Cookie role=insider",
			"expression `{http.request.cookie.role} == 'insider'`",
		},
		values: []string{"{http.request.cookie.role}"}, insiders: "insider",
		asks: hasHeader("Cookie", "role=insider"),
	},
	"authorization": {
		insider: withHeader("insider by Authorization", "Authorization", "Basic YWxpY2U6aW5zaWRl"), // alice:inside
		matchers: []string{
			"header Authorization *",
			"expression `header({'Authorization': 'Basic *'})`",
		},
		values: []string{"{header.Authorization}"}, insiders: "Basic.*",
		asks: hasHeader("Authorization", "Basic"),
	},
	"role": {
		insider: withHeader("insider by a header of its own", "X-Role", "insider"),
		matchers: []string{
			"header X-Role insider",
			"header_regexp X-Role ^in",
		},
		values: []string{"{header.X-Role}"}, insiders: "insider",
		asks: hasHeader("X-Role", "insider"),
	},
	"language": {
		insider: withHeader("insider by language", "Accept-Language", "eo"),
		matchers: []string{
			"header Accept-Language eo*",
			"header_regexp Accept-Language ^eo",
			"expression `{header.Accept-Language}.startsWith('eo')`",
			"vars {header.Accept-Language} eo",
			"not header !Accept-Language",
		},
		values: []string{"{header.Accept-Language}"}, insiders: "eo",
		asks: hasHeader("Accept-Language", "eo"),
	},
	"agent": {
		insider: withHeader("insider by agent", "User-Agent", "Inside/1.0"),
		matchers: []string{
			"header User-Agent Inside/*",
			"file /agents/{http.request.header.User-Agent}",
			"vars_regexp {header.User-Agent} ^Inside/",
		},
		values: []string{"{header.User-Agent}"}, insiders: "Inside/.*",
		asks: hasHeader("User-Agent", "Inside"),
	},
	"referer": {
		insider: withHeader("insider by Referer", "Referer", "https://inside.test/"),
		matchers: []string{
			"header Referer https://inside.test/*",
			"expression `header({'Referer': '*inside*'})`",
		},
		values: []string{"{header.Referer}"}, insiders: ".*inside.*",
		asks: hasHeader("Referer", "inside.test"),
	},
	"protocol": {
		insider: with("insider by HTTP/2", func(id *identity) { id.protocol = "h2" }),
		matchers: []string{
			"protocol http/2",
			"expression `{http.request.proto} == 'HTTP/2.0'`",
		},
		values: []string{"{http.request.proto}"}, insiders: "HTTP/2.*",
	},
	"method": {
		insider: with("insider by POST", func(id *identity) { id.method = http.MethodPost }),
		matchers: []string{
			"method POST",
		},
		values: []string{"{http.request.method}"}, insiders: "POST",
		asks: hasHeader("X-Forwarded-Method", "POST"),
	},
	"accept": {
		insider: withHeader("insider by Accept", "Accept", "text/html, text/event-stream"),
		matchers: []string{
			"header Accept *html*",
		},
		values: []string{"{header.Accept}"}, insiders: ".*html.*",
		asks: hasHeader("Accept", "html"),
	},
	"query": {
		insider: with("insider by query", func(id *identity) { id.query = "role=insider" }),
		matchers: []string{
			"query role=insider",
			"expression `{query.role} == 'insider'`",
		},
		values: []string{"{query.role}"}, insiders: "insider", shared: true,
		asks: hasHeader("X-Forwarded-Uri", "role=insider"),
	},
	"host": {
		insider: with("insider by host", func(id *identity) { id.host = "inside.test" }),
		matchers: []string{
			"host inside.test",
			"expression `{http.request.host} == 'inside.test'`",
		},
		values: []string{"{http.request.host}"}, insiders: `inside\.test`, shared: true,
		asks: hasHeader("X-Forwarded-Host", "inside.test"),
	},
	"path": {
		insider: with("insider by path", func(id *identity) { id.path = "/inside/events" }),
		matchers: []string{
			"path /inside/*",
			"path_regexp ^/inside/",
			"not path /events",
			"file",
		},
		values: []string{"{http.request.orig_uri.path}"}, insiders: "/inside/.*", shared: true,
		asks: hasHeader("X-Forwarded-Uri", "/inside/"),
	},
}

// proxied is a client of a proxy that is trusted.
var proxied = with("by TLS", func(id *identity) {
	id.from = trustedProxy
	id.header["X-Forwarded-For"] = "10.1.2.3"
	id.header["X-Forwarded-Proto"] = "https"
	id.header["X-Forwarded-Host"] = "public.test"
	id.header["X-Forwarded-Prefix"] = "/public"
})

// trustedProxy is the one address whose X-Forwarded-For the sites believe.
const trustedProxy = "127.0.0.4"
