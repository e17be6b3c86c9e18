package iam

// KnownAccount is knownAccount, for tests.
var KnownAccount = knownAccount
