package relay

import "github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"

// A Rejection says why a client was turned away. It is a metric label.
type Rejection string

const (
	RejectTopics        = Rejection(quota.Topics)
	RejectTopicsAddress = Rejection(quota.TopicsOfAddress)
	RejectTotal         = Rejection(quota.Subscribers)
	RejectTopic         = Rejection(quota.SubscribersOfTopic)
	RejectAddress       = Rejection(quota.SubscribersOfAddress)

	RejectUnavailable Rejection = "unavailable" // Config.Reject: the origin has not answered in time
	RejectEnding      Rejection = "ending"      // on exit, or while draining
	RejectEncoding    Rejection = "encoding"    // it accepts no form in which there is a stream; not by this package
)

// Limits are the rejections that an operator has set a bound for.
var Limits = []Rejection{RejectTopics, RejectTopicsAddress, RejectTotal, RejectTopic, RejectAddress}
