package oracle

import "testing"

const (
	password = "basic_auth {\nalice $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}\n"
	site     = "http://127.0.0.1:PORT {\n"
)

// secure are clients over TLS that differ in what only TLS has.
var secure = []identity{
	{name: "outsider"},
	{name: "with a certificate", cert: &member},
	{name: "over HTTP/2", version: 2},
	{name: "over HTTP/2 with a certificate", version: 2, cert: &member},
	{name: "from 127.0.0.2", from: "127.0.0.2"},
	{name: "outsider again"},
}

var hosts = []identity{
	{name: "of a.example", host: "a.example"},
	{name: "of b.example", host: "b.example"},
	{name: "of A.EXAMPLE", host: "A.EXAMPLE"},
	{name: "of another host", host: "c.example"},
	{name: "of a.example, from 127.0.0.2", host: "a.example", from: "127.0.0.2"},
	{name: "of a.example again", host: "a.example"},
}

// two are clients that share wherever anything is shared.
var two = []identity{{name: "first"}, {name: "second"}, {name: "from 127.0.0.2", from: "127.0.0.2"}, {name: "in German", header: []string{"Accept-Language", "de"}}}

var alice = identity{name: "alice", header: []string{"Authorization", "Basic YWxpY2U6c2VjcmV0"}}

var cases = []template{
	// What was seen to leak.
	{name: "the shared request leaves its block", sites: site +
		"@external not remote_ip 127.0.0.2\nhandle @external {\nSHARE\nreverse_proxy /public/* PUB\n}\nhandle {\nreverse_proxy PRIV\n}\n}",
		clients: []identity{{name: "of a secret", path: "/secret"}, {name: "of what is public", path: "/public/events"},
			{name: "of a secret, from 127.0.0.2", path: "/secret", from: "127.0.0.2"}, {name: "of a secret again", path: "/secret"}}},
	{name: "a handler at two places", sites: "&(share_N) {\nSHARE\n}\n" + site +
		"@internal remote_ip 127.0.0.2\nhandle @internal {\ninvoke share_N\nreverse_proxy PRIV\n}\nhandle {\ninvoke share_N\nreverse_proxy PUB\n}\n}"},
	{name: "access control that a reload puts in front",
		sites: site + "handle {\nSHARE\nreverse_proxy PUB\n}\n}",
		after: site + "handle {\n" + password + "SHARE\nreverse_proxy PRIV\n}\n}"},

	// What is plainly safe is shared.
	{name: "a bare site", sites: site + "handle {\nSHARE\nreverse_proxy PUB\n}\n}", clients: two, connections: 1},
	{name: "a path", sites: site + "handle_path /events* {\nSHARE\nreverse_proxy PUB\n}\n}", clients: two, connections: 1},
	{name: "a route", sites: site + "route {\nrewrite * /rewritten\nvars role all\nrequest_header X-Site all\nSHARE\nreverse_proxy PUB {\nheader_up X-Role {vars.role}\n}\n}\n}", clients: two, connections: 1},
	{name: "a block, and what others get", sites: site + "handle /events* {\nSHARE\nreverse_proxy PUB\n}\n@m remote_ip 127.0.0.2\nrespond @m 403\nredir /old /new\nreverse_proxy PRIV\n}", clients: two, connections: 1},
	{name: "a map by path", sites: site + "map {path} {flavor} {\n/events sweet\ndefault sour\n}\nhandle {\nSHARE\nreverse_proxy PUB {\nheader_up X-Flavor {flavor}\n}\n}\n}", clients: two, connections: 1},
	{name: "encode, header and log", sites: site + "log {\noutput discard\n}\nencode\nheader X-Served yes\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}", clients: two, connections: 1},
	{name: "try_files", sites: site + "root ROOT\nhandle {\ntry_files {path} /index.html\nSHARE\nreverse_proxy PUB\n}\n}", clients: two, connections: 1},
	{name: "php_fastcgi", sites: site + "root ROOT\nhandle {\nSHARE\nphp_fastcgi PUBFCGI\n}\n}", clients: two, connections: 1},
	{name: "behind a WebSocket matcher", sites: site + "route {\nSHARE\n@ws {\nheader Connection *Upgrade*\nheader Upgrade websocket\n}\nreverse_proxy @ws PRIV\nreverse_proxy PUB\n}\n}", clients: two, connections: 1},

	// Sites, listeners, certificates, proxies.
	{name: "several sites", sites: "http://a.example:PORT {\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}\nhttp://b.example:PORT {\nhandle {\nSHARE\nreverse_proxy PRIV\n}\n}\nhttp://:PORT {\nrespond none\n}", clients: hosts},
	{name: "a site with access control", sites: "http://a.example:PORT {\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}\nhttp://*.example:PORT {\n@n not remote_ip 127.0.0.2\nrespond @n 403\nhandle {\nSHARE\nreverse_proxy PRIV\n}\n}", clients: hosts},
	{name: "several listeners", sites: "http://127.0.0.1:PORT, http://127.0.0.1:PORT2 {\n@second `{http.request.local.port} == PORT2`\nhandle @second {\nSHARE\nreverse_proxy PRIV\n}\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}"},
	{name: "client certificates", tls: true, clients: secure, sites: "https://127.0.0.1:PORT {\ntls CERT KEY {\nclient_auth {\nmode verify_if_given\ntrust_pool file CAFILE\n}\n}\n" +
		"@member `{http.request.tls.client.subject} != null && {http.request.tls.client.subject} != ''`\nhandle @member {\nSHARE\nreverse_proxy PRIV\n}\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}"},
	{name: "client certificates behind", tls: true, clients: secure, sites: "https://127.0.0.1:PORT {\ntls CERT KEY {\nclient_auth {\nmode verify_if_given\ntrust_pool file CAFILE\n}\n}\n" +
		"route {\nSHARE\n@member vars_regexp {http.request.tls.client.subject} .+\nreverse_proxy @member PRIV\nreverse_proxy PUB\n}\n}"},
	{name: "HTTP versions", tls: true, clients: secure, sites: "https://127.0.0.1:PORT {\ntls CERT KEY\n@h2 protocol http/2+\nhandle @h2 {\nSHARE\nreverse_proxy PRIV\n}\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}"},
	{name: "HTTP versions behind", tls: true, clients: secure, sites: "https://127.0.0.1:PORT {\ntls CERT KEY\nroute {\nSHARE\n@h2 protocol http/2+\nreverse_proxy @h2 PRIV\nreverse_proxy PUB\n}\n}"},
	{name: "over TLS", tls: true, sites: "https://127.0.0.1:PORT {\ntls CERT KEY\n@plain protocol http\nredir @plain https://{host}{uri}\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}",
		clients: []identity{{name: "first"}, {name: "over HTTP/2", version: 2}, {name: "second"}}, connections: 1},
	{name: "a trusted proxy", global: "servers 127.0.0.1:PORT {\ntrusted_proxies static 127.0.0.9\n}", sites: site + "handle {\nSHARE\nreverse_proxy PUB\n}\n}"},
	{name: "a trusted proxy that ends TLS", global: "servers 127.0.0.1:PORT {\ntrusted_proxies static 127.0.0.9\n}",
		sites: site + "@http header X-Forwarded-Proto http\nredir @http https://{host}{uri}\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}"},
	{name: "clients of a trusted proxy", global: "servers 127.0.0.1:PORT {\ntrusted_proxies static 127.0.0.9\n}",
		sites: site + "@office client_ip 127.0.0.2\nhandle @office {\nSHARE\nreverse_proxy PRIV\n}\nhandle {\nSHARE\nreverse_proxy PUB\n}\n}"},

	// Answers that are not the origin's.
	{name: "handle_errors", sites: site + "handle {\nSHARE\n@m header User-Agent insider\nerror @m 410\nreverse_proxy PUB\n}\nhandle_errors {\nrespond \"sorry {err.status_code}\"\n}\n}"},
	{name: "intercept", sites: site + "handle {\nintercept {\n@gone status 410\nhandle_response @gone {\nrespond \"intercepted\"\n}\n}\nSHARE\nreverse_proxy PUB\n}\n}"},
	{name: "an origin that is down", sites: site + "handle {\nSHARE\nrespond 410\n}\nhandle_errors {\nrespond \"sorry\"\n}\n}"},
	{name: "nothing behind", sites: site + "route {\nSHARE\n}\n}"},
	{name: "two lines", sites: site + "route {\nSHARE\nroute {\nSHARE\nreverse_proxy PUB\n}\n}\n}"},
	{name: "forward_auth", sites: site + "handle {\nforward_auth PUB {\nuri /auth\ncopy_headers X-Role\n}\nSHARE\nreverse_proxy PRIV\n}\n}"},
	{name: "forward_auth that lets all in", sites: site + "handle {\nforward_auth PUB {\nuri /auth?open\ncopy_headers X-Role\n}\nSHARE\nreverse_proxy PRIV\n}\n}"},
	{name: "basic_auth", sites: site + "handle {\n" + password + "SHARE\nreverse_proxy PRIV\n}\n}"},
	{name: "basic_auth, shared by each user", sites: site + "handle {\n" + password + "SHARE_VARY\nreverse_proxy PRIV\n}\n}",
		clients: []identity{{name: "outsider"}, alice, alice, {name: "with a wrong password", header: []string{"Authorization", "Basic YWxpY2U6d3Jvbmc="}}, alice}, connections: 1},
	{name: "an intranet", sites: site + "handle {\n@out not remote_ip 127.0.0.0/8\nrespond @out 403\nSHARE_FROM\nreverse_proxy PRIV\n}\n}", clients: two, connections: 1},
	{name: "an intranet that does not admit the stranger", sites: site + "handle {\n@out not remote_ip 127.0.0.0/8\nrespond @out 403\nSHARE\nreverse_proxy PRIV\n}\n}", clients: two},
	{name: "basic_auth of a path", sites: site + "basic_auth /a/* {\nalice $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}\nhandle {\nSHARE\nreverse_proxy PRIV\n}\n}"},
}

func TestCases(t *testing.T) { judge(t, cases) }
