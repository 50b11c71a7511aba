package fields

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Harmless reports whether a request field, in canonical form, says nothing
// about who the client is that an origin would judge by. The lists name what
// browsers, caches, balancers, networks of caches and tracers add. What an
// authenticating proxy adds must not be in them, which rules out the whole
// families of X-Forwarded-* (X-Forwarded-User, X-Forwarded-Client-Cert) and
// CF-* (CF-Access-Jwt-Assertion).
func Harmless(name string) bool {
	if harmlessNames[name] {
		return true
	}
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return slices.ContainsFunc(harmlessPrefixes, begins) && !slices.ContainsFunc(harmfulPrefixes, begins)
}

// harmfulPrefixes are of what Cloudflare and CloudFront add for a client that has logged in
// or shown a certificate, and if their user has asked for it, of where it is: an application
// that is told a client's city makes something of it.
var harmfulPrefixes = []string{
	"Cf-Access-",
	"Cf-Cert-",
	"Cf-Client-Cert-",
	"Cf-Ipcity",
	"Cf-Iplatitude",
	"Cf-Iplongitude",
	"Cf-Metro-Code",
	"Cf-Postal-Code",
	"Cf-Region",
	"Cf-Timezone",
	"Cloudfront-Viewer-Cert-",
	"Cloudfront-Viewer-City",
	"Cloudfront-Viewer-Country-Region",
	"Cloudfront-Viewer-Latitude",
	"Cloudfront-Viewer-Longitude",
	"Cloudfront-Viewer-Metro-Code",
	"Cloudfront-Viewer-Postal-Code",
	"Cloudfront-Viewer-Time-Zone",
}

// Countries are the request fields, in canonical form, by which networks of caches tell from
// which country or continent a client is. Cloudflare sends its own with every request.
var Countries = []string{
	"Cf-Ipcontinent",
	"Cf-Ipcountry",
	"Cloudfront-Viewer-Country",
	"Cloudfront-Viewer-Country-Name",
	"X-Appengine-Country",
	"X-Vercel-Ip-Country",
}

var harmlessPrefixes = []string{
	"Cf-",
	"Cloudfront-",
	"If-",
	"Sec-Ch-",
	"Sec-Fetch-",
	"X-B3-",
	"X-Datadog-",
}

var harmlessNames = set(`
	Accept Accept-Charset Accept-Encoding Accept-Language Cache Cache-Control
	Content-Length DNT Early-Data Forwarded Host
	Last-Event-ID Origin Pragma Priority Referer Save-Data Sec-GPC Sec-Purpose
	Purpose Upgrade-Insecure-Requests User-Agent Via

	Device-Memory Downlink DPR ECT RTT Viewport-Width Width

	Connection HTTP2-Settings Keep-Alive Proxy-Connection Range TE Trailer
	Transfer-Encoding Upgrade

	X-Forwarded X-Forwarded-By X-Forwarded-For X-Forwarded-Host
	X-Forwarded-Path X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto
	X-Forwarded-Protocol X-Forwarded-Scheme X-Forwarded-Server X-Forwarded-Ssl
	X-Forwarded-Uri X-Original-Host X-Scheme X-Url-Scheme Front-End-Https

	CDN-Loop Client-IP True-Client-IP X-Client-IP X-Cluster-Client-IP
	X-Envoy-External-Address X-Envoy-Expected-Rq-Timeout-Ms X-Real-IP
	X-Original-Forwarded-For X-Varnish X-Timer
	Fastly-Client-IP Fastly-FF Fastly-SSL Fastly-Orig-Accept-Encoding
	Fly-Client-IP Fly-Forwarded-Port Fly-Forwarded-Proto Fly-Forwarded-Ssl
	Fly-Region Fly-Request-Id
	X-Amz-Cf-Id X-Azure-ClientIP X-Azure-FDID X-Azure-Ref X-Azure-RequestChain
	X-Azure-SocketIP X-FD-HealthProbe X-Appengine-Country
	X-Vercel-Forwarded-For X-Vercel-IP-Country X-Nf-Client-Connection-IP

	B3 Baggage Traceparent Tracestate X-Amzn-Trace-Id X-Cloud-Trace-Context
	X-Correlation-ID X-Ot-Span-Context X-Request-ID X-Request-Start Uber-Trace-Id
`)

// HarmlessNames returns an iterator over the names of those that Harmless knows by name.
func HarmlessNames() iter.Seq[string] { return maps.Keys(harmlessNames) }

// SelectsVariant reports whether a request header, in canonical form, joins the key
// when an answer varies by it: those by which a server chooses among a few
// variants. By all others that are harmless, each client would get a topic.
func SelectsVariant(name string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return variantNames[name] || slices.Contains(Countries, name) || slices.ContainsFunc(variantPrefixes, begins)
}

var variantPrefixes = []string{
	"Accept-",
	"Cloudfront-Is-",
	"Sec-Ch-",
	"Sec-Fetch-",
}

var variantNames = set(`
	DNT Save-Data Sec-GPC Upgrade-Insecure-Requests User-Agent

	Device-Memory Downlink DPR ECT RTT Viewport-Width Width
`)

// SameForAll reports whether a request header, in canonical form, is the same in
// all requests that share a topic.
func SameForAll(name string) bool {
	// A client that carries a header that is not harmless shares only with
	// "credentials strip", which says that the stream does not depend on it. One by
	// which servers choose a variant is no credential.
	return !Harmless(name) && !SelectsVariant(name) || fixedNames[name]
}

// fixedNames are set by us, or say where a client resumes and not what it asks
// for, or are for one connection. The origin sees the key's host and scheme in
// X-Forwarded-*, and its own policy for pages or ours decides by Origin.
var fixedNames = set(`
	Accept Accept-Encoding Cache-Control Content-Length Last-Event-ID Pragma

	Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding

	Host Origin X-Forwarded-Host X-Forwarded-Proto
`)
