// Package pass decides which requests are not shared but pass one to one, and why; by the
// request, and by what the origin's answer says. The streams of those that pass count for the
// limits like subscribers.
package pass

// A Reason says why a request is not shared but goes through one to one.
// It is a metric label. As an error, it is what serving a subscriber returns
// when nothing was written yet and the client's own request must pass.
type Reason string

func (why Reason) Error() string {
	return "passing the request one to one: " + string(why)
}

const (
	Method      Reason = "method"       // not a GET
	Body        Reason = "body"         // wrapping form: carries a body
	Upgrade     Reason = "upgrade"      // asks for a WebSocket
	ErrorRoute  Reason = "error_route"  // inside handle_errors
	Loop        Reason = "loop"         // of a connection of sse_multiplex that is itself a topic's stream
	Accept      Reason = "accept"       // wrapping form: does not ask for an event stream before all else
	Certificate Reason = "client_cert"  // carries a client certificate
	Header      Reason = "header"       // carries a header that may identify the client
	NotStream   Reason = "not_a_stream" // the origin answered something else
	Refused     Reason = "refused"      // wrapping form: the origin said no to the shared request
	Front       Reason = "front"        // wrapping form: the site does not lead strangers to the handler
	Differs     Reason = "differs"      // wrapping form: the site has made something else of this request
	Behind      Reason = "behind"       // wrapping form: what stands behind can tell one client from another
	SetCookie   Reason = "set_cookie"   // the origin's answer sets a cookie
	Vary        Reason = "vary"         // the origin's answer varies with each client
	Session     Reason = "session"      // the origin's stream begins with a session of its own
)

// Reasons has every reason.
var Reasons = []Reason{
	Method, Body, Upgrade, ErrorRoute, Loop, Accept,
	Certificate, Header, NotStream, Refused,
	Front, Differs, Behind, SetCookie, Vary, Session,
}

// PresumesStream reports whether the answer to a request that passes for this reason
// is an event stream if that is all that the client wants. If not, the answer has to
// tell: it may be another protocol, the page of an error, or what it was before.
func (why Reason) PresumesStream() bool {
	switch why {
	case Upgrade, ErrorRoute, NotStream, Refused, Front, Differs, Behind:
		return false
	default:
		return true
	}
}
