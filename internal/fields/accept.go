package fields

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// PrefersEventStream reports whether the Accept header gives text/event-stream a greater
// weight than anything else. The shared request asks for nothing else: a server that
// would choose another type for this client must be asked by the client itself. A wildcard
// is not enough: every page load carries one.
func PrefersEventStream(header http.Header) bool {
	eventStream, others := Accepted(header)
	return eventStream > others
}

// WantsOnlyEventStream reports whether the Accept header admits text/event-stream and
// nothing else. Where it admits more, the answer may be anything: clients of MCP accept
// a stream or JSON with each POST.
func WantsOnlyEventStream(header http.Header) bool {
	eventStream, others := Accepted(header)
	return eventStream > 0 && others == 0
}

// Accepted returns the weights that the Accept header gives text/event-stream, and the
// greatest that it gives anything else.
func Accepted(header http.Header) (eventStream, others float64) {
	for item := range Items(header["Accept"]) {
		mediaType, params, _ := strings.Cut(item, ";")
		switch mediaType = textproto.TrimString(mediaType); {
		case strings.EqualFold(mediaType, "text/event-stream"):
			eventStream = max(eventStream, weight(params))
		case mediaType != "":
			others = max(others, weight(params))
		}
	}
	return eventStream, others
}

// AcceptedCodings reports whether a client wants gzip, and whether it takes an answer without
// any content coding, by its Accept-Encoding header (RFC 9110, section 12.5.3). A client without
// the header takes every coding, but as clients that do not decode any send none, it gets none.
// An answer without coding is excluded by nothing but a weight of zero for it, or for all that
// the header does not name.
func AcceptedCodings(header http.Header) (gzip, identity bool) {
	const unnamed = -1
	zipped, plain, others := float64(unnamed), float64(unnamed), float64(unnamed)
	for item := range Items(header["Accept-Encoding"]) {
		coding, params, _ := strings.Cut(item, ";")
		switch w := weight(params); strings.ToLower(textproto.TrimString(coding)) {
		case "gzip", "x-gzip": // which are the same (section 8.4.1.3)
			zipped = max(zipped, w)
		case "identity":
			plain = max(plain, w)
		case "*":
			others = max(others, w)
		}
	}
	if zipped == unnamed {
		zipped = others
	}
	if plain == unnamed && others == 0 {
		plain = 0
	}
	return zipped > 0 && zipped >= plain, plain != 0
}

// weight returns the weight in the parameters of a media range (RFC 9110, section
// 12.4.2). What is no number has none.
func weight(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		if name, value, _ := strings.Cut(textproto.TrimString(param), "="); strings.EqualFold(name, "q") {
			n, _ := strconv.ParseFloat(value, 64)
			return n
		}
	}
	return 1
}
