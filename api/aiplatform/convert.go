package aiplatform

import (
	"encoding/json"
	"fmt"
	"strings"

	beta "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"giggle/fault"
	"giggle/rest"
	"giggle/vertex"
)

// maxStops is the most stop sequences, from the API reference.
const maxStops = 5

// fieldNames is what Gemini's API calls the fields of a request.
var fieldNames = fault.FieldNames{
	vertex.FieldMedia: "contents[].parts[].inlineData",
	vertex.FieldCall:  "contents[].parts[].functionCall",
	vertex.FieldReply: "contents[].parts[].functionResponse",
	vertex.FieldTools: "tools",
	vertex.FieldJSON:  "generationConfig.responseMimeType",
}

// toRequest reads a request, but for the model's name. Safety settings and labels are accepted: there is no classifier
// that they could set, and no bill.
func toRequest(r *beta.GenerateContentRequest) (*vertex.Request, error) {
	if err := rest.Only(r, "", "model", "contents", "systemInstruction", "tools", "toolConfig", "labels",
		"safetySettings", "generationConfig"); err != nil {
		return nil, err
	}
	out := &vertex.Request{}
	if len(r.GetContents()) == 0 {
		return nil, fault.Invalid("contents", "at least one is needed")
	}
	for i, c := range r.GetContents() {
		t, err := turn(c, fmt.Sprintf("contents[%d]", i))
		if err != nil {
			return nil, err
		}
		out.Turns = append(out.Turns, t)
	}
	if c := r.GetSystemInstruction(); c != nil {
		t, err := turn(&beta.Content{Parts: c.GetParts()}, "systemInstruction")
		if err != nil {
			return nil, err
		}
		for j, p := range t.Parts {
			if p.Media != nil || p.Call != nil || p.Reply != nil {
				return nil, fault.Invalid(fmt.Sprintf("systemInstruction.parts[%d]", j),
					"only text can be an instruction")
			}
		}
		out.System = t.Text()
	}
	if err := tools(out, r); err != nil {
		return nil, err
	}
	return out, configure(out, r.GetGenerationConfig())
}

func turn(c *beta.Content, path string) (vertex.Turn, error) {
	t := vertex.Turn{Role: vertex.User}
	switch c.GetRole() {
	case "", "user", "function", "tool":
	case "model":
		t.Role = vertex.Model
	default:
		return t, fault.Invalid(path+".role", "%.40q is not user or model", c.GetRole())
	}
	if len(c.GetParts()) == 0 {
		return t, fault.Invalid(path+".parts", "at least one is needed")
	}
	for i, p := range c.GetParts() {
		at := fmt.Sprintf("%s.parts[%d]", path, i)
		if err := rest.Only(p, at, "text", "inlineData", "functionCall", "functionResponse", "thought",
			"thoughtSignature"); err != nil {
			return t, err
		}
		part, err := partOf(p, at)
		if err != nil {
			return t, err
		}
		t.Parts = append(t.Parts, part)
	}
	return t, nil
}

func partOf(p *beta.Part, at string) (out vertex.Part, err error) {
	switch d := p.GetData().(type) {
	case *beta.Part_Text:
		out.Text = d.Text
	case *beta.Part_InlineData:
		if !strings.HasPrefix(d.InlineData.GetMimeType(), "image/") {
			return out, fault.NotImplemented(at+".inlineData.mimeType", "%.60q: of media, images are implemented",
				d.InlineData.GetMimeType())
		}
		out.Media = &vertex.Media{Type: d.InlineData.GetMimeType(), Data: d.InlineData.GetData()}
	case *beta.Part_FunctionCall:
		if err := rest.Only(d.FunctionCall, at+".functionCall", "id", "name", "args"); err != nil {
			return out, err
		}
		out.Call = &vertex.Call{ID: d.FunctionCall.GetId(), Name: d.FunctionCall.GetName()}
		out.Call.Args, err = object(d.FunctionCall.GetArgs())
	case *beta.Part_FunctionResponse:
		if err := rest.Only(d.FunctionResponse, at+".functionResponse", "id", "name", "response"); err != nil {
			return out, err
		}
		out.Reply = &vertex.Reply{ID: d.FunctionResponse.GetId(), Name: d.FunctionResponse.GetName()}
		out.Reply.Response, err = object(d.FunctionResponse.GetResponse())
	default:
		return out, fault.Invalid(at, "is empty")
	}
	return out, err
}

func object(s *structpb.Struct) (json.RawMessage, error) {
	if s == nil {
		return json.RawMessage("{}"), nil
	}
	return protojson.Marshal(s)
}

// tools reads the functions that the model may ask for.
func tools(out *vertex.Request, r *beta.GenerateContentRequest) error {
	for i, t := range r.GetTools() {
		at := fmt.Sprintf("tools[%d]", i)
		if err := rest.Only(t, at, "functionDeclarations"); err != nil {
			return err
		}
		for j, f := range t.GetFunctionDeclarations() {
			at := fmt.Sprintf("%s.functionDeclarations[%d]", at, j)
			if f.GetName() == "" {
				return fault.Invalid(at+".name", "is missing")
			}
			tool := vertex.Tool{Name: f.GetName(), Description: f.GetDescription()}
			var err error
			switch {
			case f.GetParametersJsonSchema() != nil:
				tool.Parameters, err = protojson.Marshal(f.GetParametersJsonSchema())
			case f.GetParameters() != nil:
				tool.Parameters, err = schema(f.GetParameters(), at+".parameters", 0)
			}
			if err != nil {
				return err
			}
			out.Tools = append(out.Tools, tool)
		}
	}
	if err := rest.Only(r.GetToolConfig(), "toolConfig", "functionCallingConfig"); err != nil {
		return err
	}
	c := r.GetToolConfig().GetFunctionCallingConfig()
	if err := rest.Only(c, "toolConfig.functionCallingConfig", "mode", "allowedFunctionNames"); err != nil {
		return err
	}
	switch c.GetMode() {
	case beta.FunctionCallingConfig_NONE:
		out.Tools = nil
	case beta.FunctionCallingConfig_ANY:
		out.Config.MustCall = true
		if allowed := c.GetAllowedFunctionNames(); len(allowed) > 0 {
			var some []vertex.Tool
			for _, t := range out.Tools {
				for _, name := range allowed {
					if t.Name == name {
						some = append(some, t)
					}
				}
			}
			out.Tools = some
		}
	}
	return nil
}

func configure(out *vertex.Request, c *beta.GenerationConfig) error {
	const at = "generationConfig"
	err := rest.Only(c, at, "temperature", "topP", "topK", "candidateCount", "maxOutputTokens", "stopSequences",
		"presencePenalty", "frequencyPenalty", "seed",
		"responseMimeType", "responseSchema", "responseJsonSchema", "responseModalities")
	if c == nil || err != nil {
		return err
	}
	to := &out.Config
	real := func(field string, v *float32, low, high float64, to **float64) {
		if v == nil || err != nil {
			return
		}
		x := float64(*v)
		if !(x >= low && x <= high) {
			err = fault.Invalid(at+"."+field, "must be %g to %g", low, high)
		}
		*to = &x
	}
	real("temperature", c.Temperature, 0, 2, &to.Temperature)
	real("topP", c.TopP, 0, 1, &to.TopP)
	real("presencePenalty", c.PresencePenalty, -2, 2, &to.PresencePenalty)
	real("frequencyPenalty", c.FrequencyPenalty, -2, 2, &to.FrequencyPenalty)
	if err != nil {
		return err
	}
	if c.TopK != nil {
		k := int(c.GetTopK())
		if k < 1 || k > 10_000 {
			return fault.Invalid(at+".topK", "must be 1 to 10000")
		}
		to.TopK = &k
	}
	if c.MaxOutputTokens != nil {
		if to.MaxTokens = int(c.GetMaxOutputTokens()); to.MaxTokens < 1 {
			return fault.Invalid(at+".maxOutputTokens", "must be at least 1")
		}
	}
	if c.Seed != nil {
		seed := int64(c.GetSeed())
		to.Seed = &seed
	}
	if to.Stop = c.GetStopSequences(); len(to.Stop) > maxStops {
		return fault.Invalid(at+".stopSequences", "at most %d are allowed", maxStops)
	}
	for i, m := range c.GetResponseModalities() {
		if m != beta.GenerationConfig_TEXT {
			return fault.NotImplemented(fmt.Sprintf("%s.responseModalities[%d]", at, i), "answers are text")
		}
	}
	switch c.GetResponseMimeType() {
	case "", "text/plain":
	case "application/json":
		to.JSON = true
	default:
		return fault.NotImplemented(at+".responseMimeType", "%.60q: text/plain and application/json are implemented",
			c.GetResponseMimeType())
	}
	switch {
	case c.GetResponseJsonSchema() != nil:
		to.Schema, err = protojson.Marshal(c.GetResponseJsonSchema())
	case c.GetResponseSchema() != nil:
		to.Schema, err = schema(c.GetResponseSchema(), at+".responseSchema", 0)
	}
	if err == nil && to.Schema != nil && !to.JSON {
		err = fault.Invalid(at+".responseMimeType", "a schema needs application/json")
	}
	return err
}

// maxDepth bounds how deep a schema may be.
const maxDepth = 32

// schema writes an OpenAPI 3.0 schema, which Gemini has, as a JSON schema, which the backends have.
func schema(s *beta.Schema, path string, depth int) (json.RawMessage, error) {
	m, err := schemaMap(s, path, depth)
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

func schemaMap(s *beta.Schema, path string, depth int) (map[string]any, error) {
	if depth > maxDepth {
		return nil, fault.Invalid(path, "is more than %d schemas deep", maxDepth)
	}
	err := rest.Only(s, path, "type", "format", "title", "description", "nullable", "items", "minItems", "maxItems",
		"enum", "properties", "propertyOrdering",
		"required", "minimum", "maximum", "minLength", "maxLength", "pattern", "anyOf", "example")
	if err != nil {
		return nil, err
	}
	out := make(map[string]any)
	if t := s.GetType(); t != beta.Type_TYPE_UNSPECIFIED {
		out["type"] = strings.ToLower(t.String())
		if s.GetNullable() {
			out["type"] = []string{strings.ToLower(t.String()), "null"}
		}
	}
	for key, v := range map[string]string{"format": s.GetFormat(), "title": s.GetTitle(),
		"description": s.GetDescription(), "pattern": s.GetPattern()} {
		if v != "" {
			out[key] = v
		}
	}
	for key, v := range map[string]int64{"minItems": s.GetMinItems(), "maxItems": s.GetMaxItems(),
		"minLength": s.GetMinLength(), "maxLength": s.GetMaxLength()} {
		if v != 0 {
			out[key] = v
		}
	}
	for key, v := range map[string]float64{"minimum": s.GetMinimum(), "maximum": s.GetMaximum()} {
		if v != 0 {
			out[key] = v
		}
	}
	if len(s.GetEnum()) > 0 {
		out["enum"] = s.GetEnum()
	}
	if len(s.GetRequired()) > 0 {
		out["required"] = s.GetRequired()
	}
	if s.GetItems() != nil {
		if out["items"], err = schemaMap(s.GetItems(), path+".items", depth+1); err != nil {
			return nil, err
		}
	}
	if len(s.GetProperties()) > 0 {
		of := make(map[string]any)
		for name, p := range s.GetProperties() {
			if of[name], err = schemaMap(p, path+".properties["+name+"]", depth+1); err != nil {
				return nil, err
			}
		}
		out["properties"] = of
	}
	var any []map[string]any
	for i, a := range s.GetAnyOf() {
		m, err := schemaMap(a, fmt.Sprintf("%s.anyOf[%d]", path, i), depth+1)
		if err != nil {
			return nil, err
		}
		any = append(any, m)
	}
	if any != nil {
		out["anyOf"] = any
	}
	return out, nil
}

// finish are the reasons of an end in Gemini's words.
var finish = map[vertex.Finish]beta.Candidate_FinishReason{
	vertex.Stop: beta.Candidate_STOP, vertex.Length: beta.Candidate_MAX_TOKENS, vertex.Blocked: beta.Candidate_SAFETY,
}

func textPart(s string) *beta.Part { return &beta.Part{Data: &beta.Part_Text{Text: s}} }

func callParts(calls []vertex.Call) ([]*beta.Part, error) {
	var out []*beta.Part
	for _, c := range calls {
		args := &structpb.Struct{}
		if err := protojson.Unmarshal(c.Args, args); err != nil {
			e := fault.New(fault.Unavailable, "The model's backend calls %.100s with what is no object.", c.Name)
			e.Cause = err
			return nil, e
		}
		out = append(out, &beta.Part{
			Data: &beta.Part_FunctionCall{FunctionCall: &beta.FunctionCall{Id: c.ID, Name: c.Name, Args: args}},
		})
	}
	return out, nil
}

func candidate(i int, parts []*beta.Part, why beta.Candidate_FinishReason) *beta.Candidate {
	return &beta.Candidate{Index: int32(i), Content: &beta.Content{Role: "model", Parts: parts}, FinishReason: why}
}

func usageOf(u vertex.Usage) *beta.GenerateContentResponse_UsageMetadata {
	text := func(n int) []*beta.ModalityTokenCount {
		return []*beta.ModalityTokenCount{{Modality: beta.Modality_TEXT, TokenCount: int32(n)}}
	}
	return &beta.GenerateContentResponse_UsageMetadata{
		PromptTokenCount:        int32(u.Prompt),
		CandidatesTokenCount:    int32(u.Output),
		TotalTokenCount:         int32(u.Prompt + u.Output),
		PromptTokensDetails:     text(u.Prompt),
		CandidatesTokensDetails: text(u.Output),
	}
}
