CREATE TABLE employees (id TEXT PRIMARY KEY, name TEXT NOT NULL, salary TEXT NOT NULL);
CREATE TABLE payslips (
    exchange TEXT PRIMARY KEY,
    employee TEXT NOT NULL REFERENCES employees (id),
    period TEXT NOT NULL,
    net TEXT NOT NULL,
    UNIQUE (employee, period)
);
INSERT INTO employees VALUES ('E-10001', 'Aminata Diallo', '214500.50'), ('E-10002', 'Moussa Keita', '98000.00');
INSERT INTO payslips VALUES ('01980000-0000-7000-8000-000000000009', 'E-10002', '2026-09', '81000.00');
