package fields

import (
	"mime"
	"net/http"
	"slices"
	"strings"
)

// IsEventStream looks at the media type alone: parameters such as a charset do
// not matter, as an event stream is always UTF-8.
func IsEventStream(header http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		mediaType, _, _ = strings.Cut(header.Get("Content-Type"), ";")
	}
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
}

// unsharedNames are never taken from an answer of the origin, as it goes to
// many clients and its body is ours: what is meant for one client (cookies,
// authentication), for one connection (RFC 9110, section 7.6.1), or describes
// the origin's bytes.
var unsharedNames = set(`
	Set-Cookie Set-Cookie2 Clear-Site-Data
	WWW-Authenticate Authentication-Info Proxy-Authenticate
	Proxy-Authentication-Info Authorization Authentication-Control
	Optional-WWW-Authenticate

	Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding Upgrade
	Alt-Svc

	Accept-Ranges Content-Digest Content-Encoding Content-Length Content-MD5
	Content-Range Digest ETag Last-Modified Repr-Digest Age Expires Date
`)

// Copy sets what is shared in the header of one client, which handlers in
// front may go on to change.
func Copy(to, shared http.Header) {
	for name, values := range shared {
		to[name] = slices.Clone(values)
	}
}

// Shared returns the part of an answer's header that every client gets.
func Shared(header http.Header) http.Header {
	shared := make(http.Header, len(header))
	nominated := header["Connection"] // they are for that connection only
	for name, values := range header {
		if !unsharedNames[Canonical(name)] && !HasToken(nominated, name) {
			shared[name] = values
		}
	}
	return shared
}

// AddVary says that an answer depends on a request header, unless its Vary says so already.
func AddVary(header http.Header, name string) {
	if vary := header["Vary"]; !HasToken(vary, name) && !HasToken(vary, "*") {
		header["Vary"] = append(vary, name)
	}
}
