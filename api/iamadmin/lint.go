package iamadmin

import (
	"context"
	"regexp"
	"strconv"
	"strings"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"

	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
)

// LintPolicy says what is wrong with the condition of a binding that is still to be set. An answer without results
// means that nothing is.
func (s *Server) LintPolicy(_ context.Context, r *adminpb.LintPolicyRequest) (*adminpb.LintPolicyResponse, error) {
	if r.GetFullResourceName() != "" {
		if _, _, err := resource.ParseFull("full_resource_name", r.GetFullResourceName()); err != nil {
			return nil, err
		}
	}
	if r.GetCondition() == nil {
		return nil, fault.Invalid("condition", "is missing")
	}
	expression := r.GetCondition().GetExpression()
	err := iam.LintCondition(expression)
	if err == nil {
		return &adminpb.LintPolicyResponse{}, nil
	}
	f := fault.From(err)
	if f.Code != fault.InvalidArgument && f.Code != fault.Unimplemented {
		return nil, err
	}
	message := f.Message
	if len(f.Fields) > 0 {
		message = f.Fields[0].Description // without the path of a field of SetIamPolicy
	}
	return &adminpb.LintPolicyResponse{LintResults: []*adminpb.LintResult{{
		Level:              adminpb.LintResult_CONDITION,
		ValidationUnitName: "LintValidationUnits/ConditionCompileCheck",
		Severity:           adminpb.LintResult_ERROR,
		FieldName:          "condition.expression",
		LocationOffset:     offset(expression, message),
		DebugMessage:       message,
	}}}, nil
}

// position is where CEL's messages say that something is wrong: line and column, both from 1.
var position = regexp.MustCompile(`<input>:(\d{1,6}):(\d{1,6}):`)

// offset is the place that a message of CEL names as a count of characters from the beginning of an expression, 0 if it
// names none.
func offset(expression, message string) int32 {
	at := position.FindStringSubmatch(message)
	if at == nil {
		return 0
	}
	line, _ := strconv.Atoi(at[1]) // digits only
	column, _ := strconv.Atoi(at[2])
	n := max(column-1, 0)
	for i, text := range strings.Split(expression, "\n") {
		if i+1 >= line {
			break
		}
		n += len([]rune(text)) + 1
	}
	return int32(min(n, len([]rune(expression)))) //nolint:gosec // an expression is short
}

// QueryAuditableServices lists the services that write audit logs about a resource.
func (s *Server) QueryAuditableServices(
	_ context.Context, r *adminpb.QueryAuditableServicesRequest,
) (*adminpb.QueryAuditableServicesResponse, error) {
	if _, _, err := resource.ParseFull("full_resource_name", r.GetFullResourceName()); err != nil {
		return nil, err
	}
	if len(s.Audited) == 0 {
		return nil, fault.New(fault.Unimplemented, "QueryAuditableServices is not implemented on this platform.")
	}
	out := &adminpb.QueryAuditableServicesResponse{}
	for _, name := range s.Audited {
		out.Services = append(out.Services, &adminpb.QueryAuditableServicesResponse_AuditableService{Name: name})
	}
	return out, nil
}
