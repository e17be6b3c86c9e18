// Package vertex decides which backend answers for the name of a language model, and has the questions and answers in
// between in a form of its own.
//
// api/aiplatform speaks Gemini's form and the backends speak theirs (vertex/ollama, vertex/openai, vertex/embedded):
// each translates to and from this package's. A backend that can't do what a request asks for is refused by field, and
// every answer says which model it is of.
package vertex

import (
	"context"
	"encoding/json"

	"giggle/fault"
)

// Role is who speaks.
type Role string

// The roles of a conversation.
const (
	User  Role = "user"
	Model Role = "model"
)

// Request is a question to a model.
type Request struct {
	System string
	Turns  []Turn
	Tools  []Tool
	Config Generation
}

// Turn is what one speaker says.
type Turn struct {
	Role  Role
	Parts []Part
}

// Part is a piece of a turn: a text, or one of the others.
type Part struct {
	Text  string
	Media *Media
	Call  *Call
	Reply *Reply
}

// Media is an image.
type Media struct {
	Type string // "image/png", …
	Data []byte
}

// Call is a function that the model wants to have called.
type Call struct {
	ID, Name string
	Args     json.RawMessage // an object
}

// Reply is what a function returned.
type Reply struct {
	ID, Name string
	Response json.RawMessage // an object
}

// Tool is a function that the model may ask for.
type Tool struct {
	Name, Description string
	Parameters        json.RawMessage // JSON schema, nil for none
}

// Generation says how to answer. A nil field is the backend's default.
type Generation struct {
	Temperature, TopP                 *float64
	TopK                              *int
	MaxTokens                         int // 0 for the backend's default
	Stop                              []string
	Seed                              *int64
	PresencePenalty, FrequencyPenalty *float64
	JSON                              bool            // the answer is JSON
	Schema                            json.RawMessage // of that JSON, nil for any
	MustCall                          bool            // the answer is a call of a function
}

// Chunk is a part of an answer as it comes.
type Chunk struct {
	Text  string
	Calls []Call
}

// Finish is why an answer ended.
type Finish string

// The ways in which an answer ends.
const (
	Stop    Finish = "stop"    // the model had said all, or said a stop sequence
	Length  Finish = "length"  // the limit of tokens
	Blocked Finish = "blocked" // the backend's own filter
)

// Usage is what an answer took, in tokens.
type Usage struct{ Prompt, Output int }

// Answer is the end of an answer.
type Answer struct {
	Finish Finish
	Usage  Usage
	Model  string // what answered, as the backend calls it
}

// Abilities are what not every backend can.
type Abilities struct{ Images, Tools, JSON bool }

// Backend answers for a model. Its errors are faults: NotFound where it has no such model, Unavailable where it does
// not answer.
type Backend interface {
	Name() string // of the model, as the backend calls it
	Abilities() Abilities
	// Generate answers, piece by piece. It ends when ctx does or emit fails.
	Generate(ctx context.Context, r *Request, emit func(Chunk) error) (Answer, error)
	// Count returns how many tokens a request's prompt has.
	Count(ctx context.Context, r *Request) (int, error)
}

// The fields of a Request that Check names.
const (
	FieldMedia fault.Path = "turns[].parts[].media"
	FieldCall  fault.Path = "turns[].parts[].call"
	FieldReply fault.Path = "turns[].parts[].reply"
	FieldTools fault.Path = "tools"
	FieldJSON  fault.Path = "config.json"
)

// Check fails with Unimplemented, and the field, when a request asks for what a backend can't.
func (r *Request) Check(can Abilities) error {
	for i, t := range r.Turns {
		for j, p := range t.Parts {
			switch {
			case p.Media != nil && !can.Images:
				return fault.NotImplemented(string(FieldMedia.At(i, j)), "this model's backend takes no images")
			case p.Call != nil && !can.Tools:
				return fault.NotImplemented(string(FieldCall.At(i, j)), "this model's backend calls no functions")
			case p.Reply != nil && !can.Tools:
				return fault.NotImplemented(string(FieldReply.At(i, j)), "this model's backend calls no functions")
			}
		}
	}
	if len(r.Tools) > 0 && !can.Tools {
		return fault.NotImplemented(string(FieldTools), "this model's backend calls no functions")
	}
	if (r.Config.JSON || r.Config.Schema != nil) && !can.JSON {
		return fault.NotImplemented(string(FieldJSON), "this model's backend can't hold itself to JSON")
	}
	return nil
}
