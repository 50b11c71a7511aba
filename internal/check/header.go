package check

import (
	"fmt"
	"strings"
)

func (j *judge) caching() {
	const fix = "Send \"Cache-Control: no-cache, no-transform\"."
	control := strings.ToLower(strings.Join(j.header.Values("Cache-Control"), ","))
	status := strings.ToUpper(j.header.Get("Cf-Cache-Status") + " " + j.header.Get("X-Cache"))
	switch age := j.header.Get("Age"); {
	case strings.Contains(status, "HIT") || age != "" && age != "0":
		j.find(Failure, "caching", "The answer comes from a cache: it is a recording, not the stream.", fix+" And leave this path out of the cache.")
	case control == "":
		j.find(Warning, "caching", "There is no Cache-Control: a cache may store the stream, and so wait for its end.", fix)
	case !strings.Contains(control, "no-cache") && !strings.Contains(control, "no-store") && !strings.Contains(control, "private"):
		j.find(Warning, "caching", fmt.Sprintf("Cache-Control is %s, which lets caches store the stream, and so wait for its end.", quoted(control)), fix)
	case !strings.Contains(control, "no-transform"):
		j.find(Note, "caching", fmt.Sprintf("Cache-Control is %s; with no-transform, no proxy may compress the stream either.", quoted(control)), "")
	default:
		j.find(OK, "caching", fmt.Sprintf("Cache-Control is %s.", quoted(control)), "")
	}
	if strings.EqualFold(j.header.Get("X-Accel-Buffering"), "yes") {
		j.find(Warning, "caching", "X-Accel-Buffering: yes tells nginx to collect the stream.", "Send \"X-Accel-Buffering: no\".")
	}
}

func (j *judge) protocol() {
	const six = "a browser holds at most six connections to a site over HTTP/1.1, and each open stream, in any tab, is one of them"
	switch {
	case j.response.ProtoMajor >= 2:
		j.find(OK, "protocol", j.response.Proto+": a browser's streams share one connection.", "")
	case j.response.ProtoMinor == 0:
		j.find(Warning, "protocol", "HTTP/1.0: many proxies collect such answers.", "In nginx, \"proxy_http_version 1.1;\".")
	case j.check.Forced1:
		j.find(Note, "protocol", "HTTP/1.1, as was asked for.", "")
	case j.response.TLS != nil:
		j.find(Warning, "protocol", j.response.Proto+": "+six+".", "Turn on HTTP/2; Caddy has it on by itself.")
	default:
		j.find(Note, "protocol", j.response.Proto+", without TLS: "+six+". Over HTTPS, HTTP/2 has no such limit.", "")
	}
}

func (j *judge) cors() {
	allowed := j.header.Get("Access-Control-Allow-Origin")
	switch origin := j.check.Origin; {
	case origin == "" && allowed == "":
		j.find(Note, "cors", "Only pages of the same site can read the stream. (--origin checks for another.)", "")
	case origin == "":
		j.find(Note, "cors", fmt.Sprintf("Pages of %s can read the stream.", quoted(allowed)), "")
	case allowed == "*" || allowed == origin:
		j.find(OK, "cors", fmt.Sprintf("Pages of %s can read the stream.", origin), "")
	default:
		text := fmt.Sprintf("Pages of %s cannot read the stream: there is no Access-Control-Allow-Origin.", origin)
		if allowed != "" {
			text = fmt.Sprintf("Pages of %s cannot read the stream: Access-Control-Allow-Origin is %s.", origin, quoted(allowed))
		}
		j.find(Failure, "cors", text, fmt.Sprintf("Send \"Access-Control-Allow-Origin: %s\"; in sse_fanout, \"cors_origins %s\".", origin, origin))
	}
}
