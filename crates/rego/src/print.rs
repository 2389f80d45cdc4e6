//! Prints statements and expressions of a syntax tree as Rego text.
//!
//! `negation` writes rewritten statements with it. The text parses to the same tree: operators are
//! in parentheses exactly where precedence needs them, strings are escaped as JSON. A statement
//! inside a nested query begins on its author's line, if the printer has not passed that line
//! already, so that errors name it. Comments are not printed.

use std::ops::Deref;

use regorus::unstable::{
    ArithOp, AssignOp, BinOp, BoolOp, Expr, Literal, LiteralStmt, Query, Span, WithModifier,
};

/// How tightly an expression binds; operands that bind less tightly get parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Binding {
    /// An assignment, or membership with a key: only as a whole statement.
    Statement,
    /// `in`.
    Membership,
    /// Comparisons.
    Comparison,
    /// `|`.
    Union,
    /// `&`.
    Intersection,
    /// `+` and `-`.
    Sum,
    /// `*`, `/` and `%`.
    Product,
    /// Everything else.
    Primary,
}

/// What is printed in place of parts of the tree.
pub(super) trait Rewrite {
    /// Appends a statement of a nested query, with its modifiers, to the printer's text.
    fn statement(&mut self, printer: &mut Printer, statement: &LiteralStmt);

    /// The name that stands for this expression, if one does.
    fn name_of(&self, expr: &Expr) -> Option<&str>;

    /// The function to call with the operands of this operator in its place, if there is one.
    fn function_for(&mut self, expr: &Expr) -> Option<&'static str>;
}

/// The text so far.
#[derive(Debug)]
pub(super) struct Printer {
    text: String,
    /// The line of the source that the end of the text is on.
    line: u32,
}

impl Printer {
    /// A printer whose text begins on `line`.
    pub(super) fn new(line: u32) -> Self {
        Self { text: String::new(), line }
    }

    /// The text, followed by line ends up to the line `last`.
    pub(super) fn finish(mut self, last: u32) -> String {
        self.reach(last);
        self.text
    }

    /// Appends text without line ends.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends line ends until `line` is reached. Returns whether there was one.
    fn reach(&mut self, line: u32) -> bool {
        let before = self.line;
        while self.line < line {
            self.text.push('\n');
            self.line = self.line.saturating_add(1);
        }
        self.line > before
    }

    /// The statements of a query, without its brackets.
    pub(super) fn query(&mut self, query: &Query, rewrite: &mut dyn Rewrite) {
        for (at, statement) in query.stmts.iter().enumerate() {
            if !self.reach(statement.span.line) && at > 0 {
                self.push("; ");
            }
            rewrite.statement(self, statement);
        }
    }

    /// A statement as it is.
    pub(super) fn statement(&mut self, statement: &LiteralStmt, rewrite: &mut dyn Rewrite) {
        match &statement.literal {
            Literal::SomeVars { vars, .. } => {
                let names: Vec<&str> = vars.iter().map(Span::text).collect();
                self.push("some ");
                self.push(&names.join(", "));
            }
            Literal::SomeIn { key, value, collection, .. } => {
                self.push("some ");
                if let Some(key) = key {
                    self.expression(key, Binding::Primary, rewrite);
                    self.push(", ");
                }
                self.expression(value, Binding::Primary, rewrite);
                self.push(" in ");
                self.expression(collection, Binding::Comparison, rewrite);
            }
            Literal::Every { key, value, domain, query, .. } => {
                self.push("every ");
                if let Some(key) = key {
                    self.push(key.text());
                    self.push(", ");
                }
                self.push(value.text());
                self.push(" in ");
                self.expression(domain, Binding::Comparison, rewrite);
                self.push(" { ");
                self.query(query, rewrite);
                self.push(" }");
            }
            // Whether it is false or undefined is the same here.
            Literal::Expr { expr, .. } if matches!(**expr, Expr::Membership { key: None, .. }) => {
                self.bare(expr, rewrite);
            }
            Literal::Expr { expr, .. } => self.expression(expr, Binding::Statement, rewrite),
            Literal::NotExpr { expr, .. } => {
                self.push("not ");
                self.expression(expr, Binding::Statement, rewrite);
            }
        }
        self.modifiers(&statement.with_mods, rewrite);
    }

    /// The `with` modifiers of a statement.
    pub(super) fn modifiers(&mut self, modifiers: &[WithModifier], rewrite: &mut dyn Rewrite) {
        for modifier in modifiers {
            self.target(modifier, rewrite);
            self.expression(&modifier.r#as, Binding::Membership, rewrite);
        }
    }

    /// A modifier up to its value.
    pub(super) fn target(&mut self, modifier: &WithModifier, rewrite: &mut dyn Rewrite) {
        self.push(" with ");
        self.expression(&modifier.refr, Binding::Primary, rewrite);
        self.push(" as ");
    }

    /// An expression, in parentheses where it binds less tightly than `least`.
    pub(super) fn expression(&mut self, expr: &Expr, least: Binding, rewrite: &mut dyn Rewrite) {
        if let Some(name) = rewrite.name_of(expr) {
            self.text.push_str(name);
            return;
        }
        if let Some(function) = rewrite.function_for(expr) {
            self.push(function);
            self.list("(", &operands(expr), ")", rewrite);
            return;
        }
        let parentheses = binding(expr) < least;
        if parentheses {
            self.push("(");
        }
        self.bare(expr, rewrite);
        if parentheses {
            self.push(")");
        }
    }

    fn bare(&mut self, expr: &Expr, rewrite: &mut dyn Rewrite) {
        match expr {
            Expr::String { value, .. } | Expr::RawString { value, .. } => {
                self.push(&super::value::json(value));
            }
            Expr::Number { span, .. }
            | Expr::Bool { span, .. }
            | Expr::Null { span, .. }
            | Expr::Var { span, .. } => self.push(span.text()),
            Expr::Array { items, .. } => self.list("[", items, "]", rewrite),
            Expr::Set { items, .. } if items.is_empty() => self.push("set()"),
            Expr::Set { items, .. } => self.list("{", items, "}", rewrite),
            Expr::Object { fields, .. } => {
                self.push("{");
                for (at, (_, key, value)) in fields.iter().enumerate() {
                    self.push(if at > 0 { ", " } else { "" });
                    self.expression(key, Binding::Membership, rewrite);
                    self.push(": ");
                    self.expression(value, Binding::Membership, rewrite);
                }
                self.push("}");
            }
            Expr::ArrayCompr { term, query, .. } => {
                self.comprehension(["[", "]"], &[term], query, rewrite);
            }
            Expr::SetCompr { term, query, .. } => {
                self.comprehension(["{", "}"], &[term], query, rewrite);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.comprehension(["{", "}"], &[key, value], query, rewrite);
            }
            Expr::Call { fcn, params, .. } => {
                self.expression(fcn, Binding::Primary, rewrite);
                self.list("(", params, ")", rewrite);
            }
            Expr::UnaryExpr { expr, .. } => {
                self.push("(-");
                self.expression(expr, Binding::Primary, rewrite);
                self.push(")");
            }
            Expr::RefDot { refr, field, .. } => {
                self.expression(refr, Binding::Primary, rewrite);
                self.push(".");
                self.push(field.0.text());
            }
            Expr::RefBrack { refr, index, .. } => {
                self.expression(refr, Binding::Primary, rewrite);
                self.push("[");
                self.expression(index, Binding::Membership, rewrite);
                self.push("]");
            }
            Expr::BinExpr { .. }
            | Expr::BoolExpr { .. }
            | Expr::ArithExpr { .. }
            | Expr::AssignExpr { .. }
            | Expr::Membership { .. } => self.infix(expr, rewrite),
        }
    }

    /// Prints an operator between its operands.
    fn infix(&mut self, expr: &Expr, rewrite: &mut dyn Rewrite) {
        match expr {
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                let own = binding(expr);
                let (left, right) = sides(own);
                self.expression(lhs, left, rewrite);
                self.push(operator(expr));
                self.expression(rhs, right, rewrite);
            }
            Expr::Membership { key, value, collection, .. } => {
                if let Some(key) = key {
                    self.expression(key, Binding::Comparison, rewrite);
                    self.push(", ");
                    self.expression(value, Binding::Comparison, rewrite);
                } else {
                    self.expression(value, Binding::Membership, rewrite);
                }
                self.push(" in ");
                self.expression(collection, Binding::Comparison, rewrite);
            }
            _ => {}
        }
    }

    fn list<T: Deref<Target = Expr>>(
        &mut self,
        open: &str,
        items: &[T],
        close: &str,
        rewrite: &mut dyn Rewrite,
    ) {
        self.push(open);
        for (at, item) in items.iter().enumerate() {
            self.push(if at > 0 { ", " } else { "" });
            self.expression(item, Binding::Membership, rewrite);
        }
        self.push(close);
    }

    fn comprehension(
        &mut self,
        brackets: [&str; 2],
        terms: &[&Expr],
        query: &Query,
        rewrite: &mut dyn Rewrite,
    ) {
        let [open, close] = brackets;
        self.push(open);
        for (at, term) in terms.iter().enumerate() {
            self.push(if at > 0 { ": " } else { "" });
            self.expression(term, Binding::Primary, rewrite);
        }
        self.push(" | ");
        self.query(query, rewrite);
        self.push(close);
    }
}

/// The operands of `in`, in the order of a call's arguments.
pub(super) fn operands(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).map(AsRef::as_ref).collect()
        }
        _ => Vec::new(),
    }
}

/// How tightly an expression binds.
pub(super) fn binding(expr: &Expr) -> Binding {
    match expr {
        Expr::AssignExpr { .. } | Expr::Membership { key: Some(_), .. } => Binding::Statement,
        Expr::Membership { key: None, .. } => Binding::Membership,
        Expr::BoolExpr { .. } => Binding::Comparison,
        Expr::BinExpr { op: BinOp::Union, .. } => Binding::Union,
        Expr::BinExpr { op: BinOp::Intersection, .. } => Binding::Intersection,
        Expr::ArithExpr { op: ArithOp::Add | ArithOp::Sub, .. } => Binding::Sum,
        Expr::ArithExpr { .. } => Binding::Product,
        _ => Binding::Primary,
    }
}

/// What the operands of an operator with the binding `own` need: operators of one binding are read
/// from the left.
pub(super) fn sides(own: Binding) -> (Binding, Binding) {
    match own {
        Binding::Statement => (Binding::Primary, Binding::Membership),
        Binding::Membership => (Binding::Membership, Binding::Comparison),
        Binding::Comparison => (Binding::Comparison, Binding::Union),
        Binding::Union => (Binding::Union, Binding::Intersection),
        Binding::Intersection => (Binding::Intersection, Binding::Sum),
        Binding::Sum => (Binding::Sum, Binding::Product),
        Binding::Product | Binding::Primary => (Binding::Product, Binding::Primary),
    }
}

/// The sign of an operator, with spaces around it.
pub(super) fn operator(expr: &Expr) -> &'static str {
    match expr {
        Expr::BinExpr { op: BinOp::Union, .. } => " | ",
        Expr::BinExpr { op: BinOp::Intersection, .. } => " & ",
        Expr::BoolExpr { op, .. } => match op {
            BoolOp::Lt => " < ",
            BoolOp::Le => " <= ",
            BoolOp::Eq => " == ",
            BoolOp::Ge => " >= ",
            BoolOp::Gt => " > ",
            BoolOp::Ne => " != ",
        },
        Expr::ArithExpr { op, .. } => match op {
            ArithOp::Add => " + ",
            ArithOp::Sub => " - ",
            ArithOp::Mul => " * ",
            ArithOp::Div => " / ",
            ArithOp::Mod => " % ",
        },
        Expr::AssignExpr { op: AssignOp::Eq, .. } => " = ",
        Expr::AssignExpr { op: AssignOp::ColEq, .. } => " := ",
        _ => "",
    }
}
