package check

import (
	"net/http"
	"strings"
)

// A hop is software that a stream may pass, or come from, as far as the header
// tells.
type hop struct {
	name      string
	buffering string // how to keep it from holding events back
	silence   string // after which silence it cuts a stream, and how to change that
}

var hops = []struct {
	hop
	seen func(http.Header) bool
}{
	{hop{"Cloudflare",
		"Cloudflare: send \"Cache-Control: no-cache, no-transform\", and turn off whatever rewrites or compresses the body on this path (a Worker that reads it whole, Rocket Loader, Brotli)",
		"Cloudflare ends a stream when its origin has been silent for about 100s"},
		func(h http.Header) bool { return h.Get("Cf-Ray") != "" || server(h, "cloudflare") }},
	{hop{"CloudFront",
		"CloudFront: use the policy CachingDisabled and no compression on this path",
		"CloudFront ends a stream after 30s of silence (origin response timeout)"},
		func(h http.Header) bool { return h.Get("X-Amz-Cf-Id") != "" || via(h, "cloudfront") }},
	{hop{"Fastly",
		"Fastly: set beresp.do_stream and pass this path",
		"Fastly ends a stream after 10s of silence (between_bytes_timeout)"},
		func(h http.Header) bool { return strings.HasPrefix(h.Get("X-Served-By"), "cache-") }},
	{hop{"Varnish",
		"Varnish: return (pipe) for this path, or set beresp.do_stream and beresp.uncacheable",
		"Varnish ends a stream after 60s of silence (between_bytes_timeout)"},
		func(h http.Header) bool { return h.Get("X-Varnish") != "" || via(h, "varnish") }},
	{hop{"Google Cloud load balancer", "",
		"a Google Cloud load balancer ends a response, silent or not, after the backend service's timeout, which is 30s by default"},
		func(h http.Header) bool { return via(h, "google") }},
	{hop{"Heroku's router", "",
		"Heroku's router ends a stream after 55s of silence, and wants its first byte within 30s"},
		func(h http.Header) bool { return via(h, "vegur") || via(h, "heroku") }},
	{hop{"AWS load balancer", "",
		"an AWS load balancer ends a connection after 60s of silence (idle timeout)"},
		func(h http.Header) bool {
			return server(h, "awselb") || strings.Contains(strings.Join(h.Values("Set-Cookie"), "\n"), "AWSALB")
		}},
	{hop{"Azure Front Door", "",
		"Azure Front Door ends a response after its origin response timeout, 60s by default"},
		func(h http.Header) bool { return h.Get("X-Azure-Ref") != "" }},
	{hop{"Envoy",
		"Envoy: no buffer or compressor filter on this route",
		"Envoy ends a response after the route's timeout, 15s by default (timeout: 0s turns it off), and after 5m of silence (stream_idle_timeout)"},
		func(h http.Header) bool { return server(h, "envoy") || h.Get("X-Envoy-Upstream-Service-Time") != "" }},
	{hop{"nginx",
		"nginx: \"proxy_buffering off;\" in this location (fastcgi_buffering, uwsgi_buffering for those), or let the application send \"X-Accel-Buffering: no\"; \"gzip off;\" or no text/event-stream in gzip_types",
		"nginx ends a stream after 60s of silence (proxy_read_timeout)"},
		func(h http.Header) bool { return server(h, "nginx") || server(h, "openresty") }},
	{hop{"Apache",
		"Apache: flushpackets=on at its ProxyPass, and SetEnv no-gzip 1 on this path",
		"Apache ends a stream after 60s of silence (ProxyTimeout)"},
		func(h http.Header) bool { return server(h, "apache") }},
	{hop{"Caddy",
		"Caddy: reverse_proxy passes event streams on at once; look at request and response buffers, encode, and handlers that replace text or record responses",
		""},
		func(h http.Header) bool { return server(h, "caddy") || via(h, "caddy") }},
	{hop{"PHP",
		"PHP: flush() after each event, output_buffering = Off, zlib.output_compression = Off",
		"PHP ends a script at max_execution_time, and PHP-FPM at request_terminate_timeout"},
		func(h http.Header) bool { return strings.Contains(strings.ToLower(h.Get("X-Powered-By")), "php") }},
	{hop{"Express",
		"Express: with the compression middleware, res.flush() after each event, or leave event streams out of it",
		""},
		func(h http.Header) bool { return strings.EqualFold(h.Get("X-Powered-By"), "Express") }},
	{hop{"gunicorn", "",
		"gunicorn's sync worker ends a stream after 30s (--timeout); use threads or an asynchronous worker"},
		func(h http.Header) bool { return server(h, "gunicorn") }},
}

func server(h http.Header, name string) bool {
	return strings.Contains(strings.ToLower(h.Get("Server")), name)
}

func via(h http.Header, name string) bool {
	return strings.Contains(strings.ToLower(strings.Join(h.Values("Via"), ",")), name)
}

// recognize returns the hops that a header gives away.
func recognize(h http.Header) []hop {
	var seen []hop
	for _, known := range hops {
		if known.seen(h) {
			seen = append(seen, known.hop)
		}
	}
	return seen
}

// bufferingFix is what to do about events that are held back.
func bufferingFix(seen []hop) string {
	var fixes []string
	suspects := 0
	for _, h := range seen {
		if h.buffering == "" {
			continue
		}
		fixes = append(fixes, h.buffering)
		if h.name != "Caddy" {
			suspects++
		}
	}
	if suspects == 0 {
		fixes = append(fixes,
			"not everything shows in the header; for nginx, \"proxy_buffering off;\", or \"X-Accel-Buffering: no\" from the application",
			"for Apache, flushpackets=on",
			"for PHP, flush() after each event and output_buffering = Off",
			"for any framework, no compression, and a flush after each event")
	}
	return upperFirst(strings.Join(fixes, "; ")) + "."
}

// silenceFix is what is known of limits on silence.
func silenceFix(seen []hop) string {
	var limits []string
	for _, h := range seen {
		if h.silence != "" {
			limits = append(limits, h.silence)
		}
	}
	if len(limits) == 0 {
		return "Many proxies and load balancers cut after 30s to 60s of it."
	}
	return upperFirst(strings.Join(limits, "; ")) + "."
}

func upperFirst(text string) string {
	if text == "" || strings.HasPrefix(text, "nginx") || strings.HasPrefix(text, "gunicorn") {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
