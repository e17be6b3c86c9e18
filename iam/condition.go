package iam

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"giggle/fault"
)

// Condition says when a binding counts: google.type.Expr.
type Condition struct {
	Title       string // required
	Description string
	Expression  string // in IAM's dialect of CEL
	Location    string // of the expression in some file; it is only shown
}

// Limits of conditions. That of operators is IAM's (https://cloud.google.com/iam/quotas); IAM does not publish the
// others, which keep what an expression costs small.
const (
	maxTitle            = 100  // bytes
	maxConditionDetails = 256  // bytes of the description
	maxExpression       = 4096 // bytes
	maxLogicalOperators = 12
	maxConditionCost    = 20_000 // CEL's units, both estimated beforehand and spent
	maxResourceName     = 2048   // bytes that an estimate counts with
	maxExpressionDepth  = 32
)

// dialect is the part of CEL's standard library that IAM has: logic, comparisons, `in`, prefixes and suffixes, and time
// (https://cloud.google.com/iam/docs/conditions-attribute-reference). There are no macros, no regular expressions, and
// + and - are those of times alone, so that nothing in an expression grows.
var dialect = map[string][]string{
	operators.LogicalAnd:  {overloads.LogicalAnd},
	operators.LogicalOr:   {overloads.LogicalOr},
	operators.LogicalNot:  {overloads.LogicalNot},
	operators.Conditional: {overloads.Conditional},
	operators.Equals:      {overloads.Equals},
	operators.NotEquals:   {overloads.NotEquals},
	operators.Less: {
		overloads.LessInt64,
		overloads.LessString,
		overloads.LessTimestamp,
		overloads.LessDuration,
	},
	operators.LessEquals: {
		overloads.LessEqualsInt64,
		overloads.LessEqualsString,
		overloads.LessEqualsTimestamp,
		overloads.LessEqualsDuration,
	},
	operators.Greater: {
		overloads.GreaterInt64,
		overloads.GreaterString,
		overloads.GreaterTimestamp,
		overloads.GreaterDuration,
	},
	operators.GreaterEquals: {
		overloads.GreaterEqualsInt64,
		overloads.GreaterEqualsString,
		overloads.GreaterEqualsTimestamp,
		overloads.GreaterEqualsDuration,
	},
	operators.In: {overloads.InList},
	operators.Add: {
		overloads.AddTimestampDuration,
		overloads.AddDurationTimestamp,
		overloads.AddDurationDuration,
	},
	operators.Subtract: {
		overloads.SubtractTimestampDuration,
		overloads.SubtractTimestampTimestamp,
		overloads.SubtractDurationDuration,
	},

	overloads.StartsWith: {overloads.StartsWithString},
	overloads.EndsWith:   {overloads.EndsWithString},

	overloads.TypeConvertTimestamp: {overloads.StringToTimestamp},
	overloads.TypeConvertDuration:  {overloads.StringToDuration},

	overloads.TimeGetFullYear:  {overloads.TimestampToYear, overloads.TimestampToYearWithTz},
	overloads.TimeGetMonth:     {overloads.TimestampToMonth, overloads.TimestampToMonthWithTz},
	overloads.TimeGetDayOfYear: {overloads.TimestampToDayOfYear, overloads.TimestampToDayOfYearWithTz},
	overloads.TimeGetDate: {
		overloads.TimestampToDayOfMonthOneBased,
		overloads.TimestampToDayOfMonthOneBasedWithTz,
	},
	overloads.TimeGetDayOfMonth: {
		overloads.TimestampToDayOfMonthZeroBased,
		overloads.TimestampToDayOfMonthZeroBasedWithTz,
	},
	overloads.TimeGetDayOfWeek:    {overloads.TimestampToDayOfWeek, overloads.TimestampToDayOfWeekWithTz},
	overloads.TimeGetHours:        {overloads.TimestampToHours, overloads.TimestampToHoursWithTz},
	overloads.TimeGetMinutes:      {overloads.TimestampToMinutes, overloads.TimestampToMinutesWithTz},
	overloads.TimeGetSeconds:      {overloads.TimestampToSeconds, overloads.TimestampToSecondsWithTz},
	overloads.TimeGetMilliseconds: {overloads.TimestampToMilliseconds, overloads.TimestampToMillisecondsWithTz},
}

// notHere are functions and attributes of IAM's dialect that Giggle has no values for, and why.
var notHere = map[string]string{
	"getAttribute": "API attributes such as modifiedGrantsByRole",
	"hasOnly":      "API attributes such as modifiedGrantsByRole",
	"matchTag":     "tags", "matchTagId": "tags", "hasTagKey": "tags", "hasTagKeyId": "tags",
	"inIpRange":   "addresses",
	"destination": "Identity-Aware Proxy's attributes", "levels": "access levels", "principal": "principal attributes",
}

// conditionEnv is the dialect, made when the first condition is read; it never changes.
var conditionEnv = sync.OnceValues(func() (*cel.Env, error) {
	subset := env.NewLibrarySubset().SetDisableMacros(true)
	for function, ids := range dialect {
		f := env.NewFunction(function)
		for _, id := range ids {
			f.Overloads = append(f.Overloads, &env.Overload{ID: id})
		}
		subset.AddIncludedFunctions(f)
	}
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(subset)), cel.ClearMacros(),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(maxExpressionDepth),
		cel.Variable("resource.name", cel.StringType), cel.Variable("resource.type", cel.StringType),
		cel.Variable("resource.service", cel.StringType), cel.Variable("request.time", cel.TimestampType),
		cel.Function("extract",
			cel.MemberOverload("string_extract_string", []*cel.Type{cel.StringType, cel.StringType}, cel.StringType,
				cel.BinaryBinding(func(s, template ref.Val) ref.Val {
					out, err := extract(string(s.(types.String)), string(template.(types.String)))
					if err != nil {
						return types.WrapErr(err)
					}
					return types.String(out)
				}))),
	)
})

// extract returns the part of s that stands where {x} stands in the template: behind the first occurrence of what the
// template has before it, and up to the next occurrence of what it has behind. It is "" where s is not of that form.
func extract(s, template string) (string, error) {
	before, rest, open := strings.Cut(template, "{")
	_, after, closed := strings.Cut(rest, "}")
	if !open || !closed || strings.ContainsAny(after, "{}") || strings.Contains(before, "}") {
		return "", fmt.Errorf("the template %.60q of extract() has not one {part}", template)
	}
	_, s, ok := strings.Cut(s, before)
	if !ok {
		return "", nil
	}
	if after == "" {
		return s, nil
	}
	s, _, ok = strings.Cut(s, after)
	if !ok {
		return "", nil
	}
	return s, nil
}

// sizes tells the cost estimator how long an attribute can be.
type sizes struct{}

// EstimateSize bounds everything whose size is not written in the expression.
func (sizes) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Min: 0, Max: maxResourceName}
}

// EstimateCallCost leaves the costs of calls to CEL, but for extract, which reads its target once.
func (sizes) EstimateCallCost(function, _ string, _ *checker.AstNode, _ []checker.AstNode) *checker.CallEstimate {
	if function != "extract" {
		return nil
	}
	return &checker.CallEstimate{
		CostEstimate: checker.CostEstimate{Min: 1, Max: maxResourceName / 10},
		ResultSize:   &checker.SizeEstimate{Min: 0, Max: maxResourceName},
	}
}

// LintCondition fails with InvalidArgument, or Unimplemented, on an expression that SetPolicy would refuse. Its message
// is CEL's, with line and column where CEL has them.
func LintCondition(expression string) error {
	_, err := compileCondition(expression)
	return err
}

const expressionField = "policy.bindings.condition.expression"

// compileCondition checks an expression and makes it ready to evaluate.
func compileCondition(expression string) (cel.Program, error) {
	if strings.TrimSpace(expression) == "" {
		return nil, fault.Invalid(expressionField, "is required")
	}
	if len(expression) > maxExpression {
		return nil, fault.Invalid(expressionField, "longer than %d bytes", maxExpression)
	}
	e, err := conditionEnv()
	if err != nil {
		return nil, err
	}
	parsed, issues := e.Parse(expression)
	if issues.Err() != nil {
		return nil, fault.Invalid(expressionField, "Condition expression compilation failed. %s", issues.Err())
	}
	if err := checkShape(parsed); err != nil {
		return nil, err
	}
	checked, issues := e.Check(parsed)
	if issues.Err() != nil {
		return nil, fault.Invalid(expressionField, "Condition expression compilation failed. %s", issues.Err())
	}
	if checked.OutputType() != cel.BoolType {
		return nil, fault.Invalid(expressionField,
			"Condition expression compilation failed. The expression is of type %s; it must be bool.",
			checked.OutputType())
	}
	cost, err := e.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, fault.Invalid(expressionField, "%v", err)
	}
	if cost.Max > maxConditionCost {
		return nil, fault.Invalid(expressionField,
			"The expression can cost up to %d units to evaluate; the limit is %d.", cost.Max, maxConditionCost)
	}
	// Constant parts are evaluated here, so that timestamp("tomorrow") is refused now and not false for ever.
	p, err := e.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxConditionCost))
	if err != nil {
		return nil, fault.Invalid(expressionField, "Condition expression compilation failed. %v", err)
	}
	return p, nil
}

// checkShape refuses, before types are looked at, what IAM has and Giggle hasn't, by name; what no dialect of IAM has;
// and more logic than IAM takes.
func checkShape(parsed *cel.Ast) (err error) {
	logical := 0
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if err != nil {
			return
		}
		name := ""
		switch e.Kind() {
		case ast.CallKind:
			name = e.AsCall().FunctionName()
			switch name {
			case operators.LogicalAnd, operators.LogicalOr:
				logical += len(e.AsCall().Args()) - 1 // CEL may fold a && b && c into one call
			case operators.LogicalNot:
				logical++
			case "extract":
				err = checkTemplate(e.AsCall())
			}
		case ast.IdentKind:
			name = e.AsIdent()
		case ast.SelectKind:
			name = e.AsSelect().FieldName()
		case ast.MapKind, ast.StructKind, ast.ComprehensionKind:
			err = fault.Invalid(expressionField,
				"Condition expression compilation failed. Maps, messages and macros are no part of IAM's conditions.")
		}
		if what := notHere[name]; err == nil && what != "" {
			err = fault.NotImplemented(expressionField, "%s: conditions on %s are not implemented", name, what)
		}
	}))
	if err == nil && logical > maxLogicalOperators {
		err = fault.Invalid(expressionField, "The expression has %d logical operators; the limit is %d.", logical,
			maxLogicalOperators)
	}
	return err
}

// checkTemplate refuses a template of extract that is written out and can't be one.
func checkTemplate(call ast.CallExpr) error {
	for _, arg := range call.Args() {
		if arg.Kind() != ast.LiteralKind {
			continue
		}
		if template, ok := arg.AsLiteral().Value().(string); ok {
			if _, err := extract("", template); err != nil {
				return fault.Invalid(expressionField, "Condition expression compilation failed. %v", err)
			}
		}
	}
	return nil
}

// met evaluates a condition. A condition that fails is not met, and the error says why.
func met(p cel.Program, a *Attributes) (bool, error) {
	if p == nil {
		return false, errors.New("the expression does not compile")
	}
	if len(a.Name) > maxResourceName { // the estimate of its cost would be wrong
		return false, fmt.Errorf("resource.name is longer than %d bytes", maxResourceName)
	}
	out, _, err := p.Eval(a)
	if err != nil {
		return false, err
	}
	b, ok := out.Value().(bool)
	return b && ok, nil
}

// check fails with InvalidArgument on what can't be a condition, its expression aside.
func (c Condition) check() error {
	switch {
	case strings.TrimSpace(c.Title) == "":
		return fault.Invalid("policy.bindings.condition.title", "is required")
	case len(c.Title) > maxTitle:
		return fault.Invalid("policy.bindings.condition.title", "longer than %d bytes", maxTitle)
	case len(c.Description) > maxConditionDetails:
		return fault.Invalid("policy.bindings.condition.description", "longer than %d bytes", maxConditionDetails)
	case len(c.Location) > maxConditionDetails:
		return fault.Invalid("policy.bindings.condition.location", "longer than %d bytes", maxConditionDetails)
	}
	return nil
}

// withCond is what stands in a role's place, in a policy of version 1, where the binding has a condition.
const withCond = "_withcond_"

// hidden names a role that is bound with the condition, for a policy of version 1, which has no conditions.
func (c Condition) hidden(role string) string {
	h := sha256.Sum256([]byte(c.Title + "\x00" + c.Description + "\x00" + c.Expression))
	return role + withCond + hex.EncodeToString(h[:10])
}

// String is the condition for people to read.
func (c Condition) String() string { return cmp.Or(c.Title, "untitled") + ": " + c.Expression }
