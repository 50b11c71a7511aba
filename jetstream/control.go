package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// An opening is the body of kindOpened.
type opening struct {
	Header  map[string][]string `json:"header,omitempty"`
	Address string              `json:"address,omitempty"`

	// From is the id that the origin was asked with.
	From string `json:"from,omitempty"`

	// Gap says that events may be missing before the connection's first: the origin was
	// asked without an id, and the stream had events already.
	Gap bool `json:"gap,omitempty"`
}

// A resumed is the body of kindResumed.
type resumed struct {
	Before  string          `json:"before"`            // the place to which messages before the marker count
	Opening json.RawMessage `json:"opening,omitempty"` // of the connection to the origin, if it goes on
}

func encodeResumed(before place, opening []byte) []byte {
	return encodeJSON(resumed{before.String(), opening})
}

func decodeResumed(body []byte) (before place, o *opening, err error) {
	var r resumed
	if err := decodeJSON(body, &r); err != nil {
		return place{}, nil, err
	}
	if len(r.Opening) > 0 {
		o = new(opening)
		if err := decodeJSON(r.Opening, o); err != nil {
			return place{}, nil, err
		}
	}
	before, err = parsePlace(r.Before)
	return before, o, err
}

func encodeOpening(o *relay.Opening, from string, gap bool) []byte {
	return encodeJSON(opening{Header: o.Header, Address: o.Address, From: from, Gap: gap})
}

func decodeOpening(body []byte) (o opening, err error) {
	err = decodeJSON(body, &o)
	return o, err
}

func encodeBegun(start *relay.RunStart) []byte { return encodeJSON(start) }

func decodeBegun(body []byte) (start relay.RunStart, err error) {
	err = decodeJSON(body, &start)
	return start, err
}

// An outcome is the body of kindEnded: what relay.Outcome has for other nodes.
type outcome struct {
	Verdict     relay.Verdict       `json:"verdict"`
	Status      int                 `json:"status,omitempty"`
	Header      map[string][]string `json:"header,omitempty"`
	Body        []byte              `json:"body,omitempty"`
	Restriction relay.Restriction   `json:"restriction"`
	Unhandled   bool                `json:"unhandled,omitempty"`
	FallsBack   bool                `json:"falls_back,omitempty"`
	Failed      bool                `json:"failed,omitempty"` // it has an error
	Error       string              `json:"error,omitempty"`
	Address     string              `json:"address,omitempty"`
	RetryAfter  time.Duration       `json:"retry_after,omitempty"`
}

func encodeOutcome(o *relay.Outcome) []byte {
	told := outcome{
		Verdict: o.Verdict, Status: o.Status, Header: o.Header, Body: o.Body, Restriction: o.Restriction,
		Unhandled: o.Unhandled, FallsBack: o.FallsBack, Address: o.Address, RetryAfter: o.RetryAfter,
	}
	if o.Err != nil {
		told.Failed, told.Error = true, o.Err.Error()
	}
	return encodeJSON(told)
}

var errVerdict = errors.New("its verdict is not one that this node knows")

func decodeOutcome(body []byte) (relay.Outcome, error) {
	var told outcome
	if err := decodeJSON(body, &told); err != nil {
		return relay.Outcome{}, err
	}
	if told.Verdict < relay.Unavailable || told.Verdict > relay.Personal {
		return relay.Outcome{}, errVerdict
	}
	o := relay.Outcome{
		Verdict: told.Verdict, Status: told.Status, Header: told.Header, Body: told.Body, Restriction: told.Restriction,
		Unhandled: told.Unhandled, FallsBack: told.FallsBack, Address: told.Address, RetryAfter: max(0, told.RetryAfter),
	}
	if told.Failed {
		o.Err = errors.New(told.Error)
	}
	return o, nil
}

// encodeJSON encodes what always can be.
func encodeJSON(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("encoding a message of the fleet: " + err.Error())
	}
	return body
}

func decodeJSON(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decoding its body: %w", err)
	}
	return nil
}
