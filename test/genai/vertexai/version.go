package main

import (
	"cloud.google.com/go/vertexai/genai"
	"google.golang.org/api/option"
)

// What only later versions of the library have.

// transports are the ways to the API.
var transports = map[string][]option.ClientOption{"gRPC": nil, "REST": {genai.WithREST()}}

// usageOfLast: an answer that comes in one has the usage that its last part says.
const usageOfLast = true

func instruct(model *genai.GenerativeModel, text string) {
	model.SystemInstruction = genai.NewUserContent(genai.Text(text))
}

// holdToJSON asks for answers in JSON, and reports whether it could.
func holdToJSON(model *genai.GenerativeModel) bool {
	model.ResponseMIMEType = "application/json"
	return true
}
