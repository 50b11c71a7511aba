package oracle

// A fragment is a piece of a Caddyfile that generated sites are made of. In its
// text, @M stands for a named matcher of a trait; VALUE for a placeholder that
// differs by the trait, and INSIDERS for a regular expression of the value that the
// insider has; BY for the trait's name; ID for a number that no other fragment of
// the site has.
type fragment struct {
	name string
	text string

	// seen is a placeholder that the fragment sets, and that what stands behind
	// tells the origin: EXPOSED in the text of others.
	seen string

	// always is set if the fragment does the same for everyone, so that it has no
	// trait.
	always bool

	// inRoute is set if the fragment must stand in a route block, as Caddy would
	// sort it to another place otherwise.
	inRoute bool

	// line is what SHARE stands for in a site with the fragment, if it is not just the
	// directive.
	line string

	// certain is set if clients that the fragment treats alike must share.
	certain bool
}

// fronts stand in front of the line.
var fronts = []fragment{
	{name: "vars", text: "vars @M tierID gold", seen: "{vars.tierID}", certain: true},
	{name: "vars of the client", text: "vars whoID VALUE", seen: "{vars.whoID}"},
	{name: "map", text: "map VALUE {placeID} {\n\t~^(INSIDERS)$ inside\n\tdefault outside\n}", seen: "{placeID}", certain: true},
	{name: "map to the value", text: "map VALUE {copyID} {\n\t~(.*) \"<${1}>\"\n\tdefault none\n}", seen: "{copyID}"},
	{name: "rewrite", text: "rewrite @M /rewritten-ID{uri}", certain: true},
	{name: "rewrite to the value", text: "rewrite * {uri}&whoID=VALUE"},
	{name: "uri", text: "uri @M replace events secrets-ID", certain: true},
	{name: "uri query", text: "uri @M query tierID gold"},
	{name: "try_files", text: "try_files {path} /events", always: true, certain: true},
	{name: "root", text: "root @M ROOT/private", seen: "{http.vars.root}", certain: true},
	{name: "request_header", text: "request_header @M X-Site-Tier-ID gold"},
	{name: "request_header that looks harmless", text: "request_header @M X-Forwarded-Prefix /tier-ID"},
	{name: "request_header that a client may send", text: "request_header @M Accept-Language site-ID\nrequest_header @M User-Agent site-ID"},
	{name: "request_body", text: "request_body @M {\n\tmax_size 1KB\n}"},
	{name: "invoke", text: "invoke @M private"},
	{name: "request_header of the client", text: "request_header X-Site-Who-ID VALUE"},
	{name: "credentials removed", text: "request_header -Cookie\nrequest_header -Authorization\nrequest_header -X-Role", always: true},
	{name: "language removed", text: "request_header -Accept-Language\nrequest_header -Referer", always: true},
	{name: "method", text: "method @M POST"},
	{name: "header", text: "header @M X-Site-Answer-ID yes", certain: true},
	{name: "encode and logs", text: "encode\nlog_append whoID VALUE", certain: true},
	{name: "log_skip", text: "log_skip @M", certain: true},
	{name: "basic_auth", text: "basic_auth @M {\n\t" + alice + "\n}"},
	{name: "forward_auth refuses", text: "forward_auth @M AUTH {\n\turi /check?by=authorization\n}"},
	{name: "forward_auth by trait", text: "forward_auth AUTH {\n\turi /check?by=BY\n}"},
	{name: "forward_auth tells", text: "forward_auth AUTH {\n\turi /who?by=BY\n\tcopy_headers X-Site-User>X-Site-User-ID\n}"},
	{name: "forward_auth tells a harmless header", text: "forward_auth AUTH {\n\turi /who?by=BY\n\tcopy_headers X-Site-User>X-Forwarded-Prefix\n}"},
	{name: "respond", text: "respond @M \"no ID\" 403"},
	{name: "respond 200", text: "respond @M \"yes ID\""},
	{name: "error", text: "error @M \"no ID\" 404"},
	{name: "error 503", text: "error @M \"not now ID\" 503", line: impatient},
	{name: "abort", text: "abort @M"},
	{name: "redir", text: "redir @M /elsewhere-ID"},
	{name: "handle with another origin", text: "handle @M {\n\treverse_proxy PRIVATE\n}", certain: true},
	{name: "handle that shares another origin", text: "handle @M {\n\tSHARE\n\treverse_proxy PRIVATE\n}", certain: true},
	{name: "handle that rewrites and shares", text: "handle @M {\n\trewrite * /handled-ID{uri}\n\tSHARE\n\treverse_proxy PUBLIC\n}", certain: true},
	{name: "route that shares another origin", text: "route @M {\n\tSHARE\n\treverse_proxy PRIVATE\n}", certain: true},
	{name: "handle_path", text: "handle_path /inside/* {\n\tSHARE\n\treverse_proxy PRIVATE\n}", always: true, certain: true},
	{name: "intercept", text: "intercept @M {\n\t@missing status 404\n\thandle_response @missing {\n\t\trespond \"intercepted ID\" 418\n\t}\n}"},
	{name: "subroute that sets a variable", text: "route @M {\n\tvars tierID gold\n}", seen: "{vars.tierID}", certain: true},
}

// behinds stand behind it.
var behinds = []fragment{
	{name: "reverse_proxy", text: "reverse_proxy PUBLIC {\n\tEXPOSED\n}", always: true, certain: true},
	{name: "reverse_proxy by matcher", text: "reverse_proxy @M PRIVATE\nreverse_proxy PUBLIC {\n\tEXPOSED\n}"},
	{name: "reverse_proxy by matcher, nothing else", text: "reverse_proxy @M PUBLIC {\n\tEXPOSED\n}"},
	{name: "reverse_proxy that rewrites", text: "reverse_proxy PUBLIC {\n\trewrite /proxied{uri}\n\theader_down X-Site-Answer proxied\n\tEXPOSED\n}", always: true},
	{name: "reverse_proxy that handles a response", text: "reverse_proxy PUBLIC {\n\t@stream status 200\n\thandle_response @stream {\n\t\tcopy_response_headers\n\t\tcopy_response\n\t}\n\tEXPOSED\n}", always: true},
	{name: "php_fastcgi", text: "php_fastcgi PHP {\n\tEXPOSED\n}", always: true},
	{name: "php_fastcgi by matcher", text: "php_fastcgi @M PHP\nreverse_proxy PUBLIC {\n\tEXPOSED\n}"},
	{name: "rewrite behind", text: "rewrite @M /behind{uri}\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
	{name: "request_header behind", text: "request_header @M X-Site-Behind gold\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
	{name: "vars behind", text: "vars @M behind gold\nreverse_proxy PUBLIC {\n\theader_up X-Site-Behind {vars.behind}\n\tEXPOSED\n}", inRoute: true},
	{name: "header behind", text: "header @M X-Site-Answer behind\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
	{name: "respond behind", text: "respond @M \"behind\" 403\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
	{name: "error behind", text: "error @M \"behind\" 404\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
	{name: "handle behind", text: "handle @M {\n\treverse_proxy PRIVATE\n}\nhandle {\n\treverse_proxy PUBLIC {\n\t\tEXPOSED\n\t}\n}", inRoute: true},
	{name: "forward_auth behind", text: "forward_auth @M AUTH {\n\turi /check?by=authorization\n}\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
	{name: "a second line behind", text: "handle @M {\n\tSHARE\n\treverse_proxy PRIVATE\n}\nSHARE\nreverse_proxy PUBLIC {\n\tEXPOSED\n}", inRoute: true},
}

// A wrapper is how the line and what stands around it are put in sites: FRONTS,
// and SHARED for the line with what stands behind it. DECLARATIONS are the
// definitions of matchers, and what every site has.
var wrappers = []fragment{
	{name: "flat", always: true, certain: true, text: `http://:PORT {
	DECLARATIONS
	FRONTS
	SHARED
}`},
	{name: "handle", always: true, certain: true, text: `http://:PORT {
	DECLARATIONS
	FRONTS
	handle {
		SHARED
	}
}`},
	{name: "handle by matcher", certain: true, text: `http://:PORT {
	DECLARATIONS
	handle @M {
		FRONTS
		SHARED
	}
	handle {
		SHARE
		reverse_proxy PUBLIC {
			header_up X-Site-Block other
		}
	}
}`},
	{name: "handle by matcher, the other block is private", text: `http://:PORT {
	DECLARATIONS
	handle @M {
		reverse_proxy PRIVATE
	}
	handle {
		FRONTS
		SHARED
	}
}`},
	{name: "handle_path", always: true, certain: true, text: `http://:PORT {
	DECLARATIONS
	handle_path /inside/* {
		FRONTS
		SHARED
	}
	handle {
		FRONTS
		SHARED
	}
}`},
	{name: "route", always: true, certain: true, inRoute: true, text: `http://:PORT {
	DECLARATIONS
	route {
		FRONTS
		SHARED
	}
}`},
	{name: "nested", always: true, certain: true, text: `http://:PORT {
	DECLARATIONS
	route {
		FRONTS
		route {
			handle {
				SHARED
			}
		}
	}
}`},
	{name: "handle_errors", always: true, text: `http://:PORT {
	DECLARATIONS
	FRONTS
	SHARED
	handle_errors {
		rewrite * /errors{uri}
		SHARE
		reverse_proxy PUBLIC
	}
}`},
	{name: "named route, invoked twice", inRoute: true, text: `&(app) {
	DECLARATIONS
	route {
		SHARED
	}
}
http://:PORT {
	DECLARATIONS
	FRONTS
	handle @M {
		uri replace events private
		invoke app
	}
	handle {
		invoke app
	}
}`},
	{name: "the line alone in a named route", inRoute: true, text: `&(share) {
	SHARE
}
http://:PORT {
	DECLARATIONS
	handle @M {
		invoke share
		reverse_proxy PRIVATE
	}
	route {
		FRONTS
		invoke share
		BEHIND
	}
}`},
	{name: "two sites", always: true, certain: true, text: `http://site.test:PORT {
	DECLARATIONS
	FRONTS
	SHARED
}
http://inside.test:PORT {
	DECLARATIONS
	SHARED
}`},
	{name: "a site beside all others", always: true, certain: true, text: `http://inside.test:PORT {
	DECLARATIONS
	FRONTS
	SHARED
}
http://:PORT {
	DECLARATIONS
	FRONTS
	SHARED
}`},
}
