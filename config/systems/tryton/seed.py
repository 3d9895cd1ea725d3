"""Fills a fresh Tryton database: company, chart of accounts, years, budgets, suppliers, employees and the bus's user.

    python seed.py TRYTOND.CONF PASSWORD-FILE

It runs in Tryton's own environment, by Tryton's own client library, as a program by itself: nothing of it is ever
imported by the bus. If it breaks off, the database is thrown away and built anew.
"""

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path

from proteus import Model, config
from trytond.modules.account.tests.tools import create_chart, create_fiscalyear, get_accounts
from trytond.modules.account_invoice.tests.tools import create_payment_term, set_fiscalyear_invoice_sequences
from trytond.modules.company.tests.tools import create_company, get_company

YEARS = range(2025, 2031)
ACCOUNTS = (  # code, name, and the account of the minimal chart that it is made like
    ("6110", "Salaries of civil servants", "expense"),
    ("6220", "Goods and services", "expense"),
    ("6310", "Grants", "expense"),
    ("4210", "Net salaries to pay", "tax"),
    ("4310", "Social security to pay", "tax"),
    ("4470", "Income tax withheld", "tax"),
    ("5120", "Treasury single account", "cash"),
)
BUDGETS = {"6110": Decimal("900000000000.00"), "6220": Decimal("50000000.00")}
SUPPLIERS = (("SUP-001", "Acme Construction"), ("SUP-002", "Blue Water Ltd"))
GROUPS = ("Account", "Account Budget", "Purchase", "Accounting Party", "Employee Administration")
POSTS = (  # number, title, grade, ministry, department, how many are established
    (1, "Director", "A", "MOF", "Budget", 1),
    (2, "Officer", "B", "MOF", "Treasury", 3),
    (3, "Clerk", "C", "MOF", "Records", 4),
    (4, "Judge", "A", "MOJ", "Courts", 12),
)
EMPLOYEES = (  # number, national id, family name, given names, birth date, post, salary
    ("E-000001", "NIN-1984-0001", "Diallo", "Amina", (1984, 3, 2), 1, "612000.00"),
    ("E-000002", "NIN-1990-0002", "N'Guessan", "Adjoua", (1990, 11, 23), 2, "214500.50"),
    ("E-000003", "NIN-1979-0003", "Traoré", "Seydou", (1979, 7, 14), 2, "219800.00"),
    ("E-000004", "NIN-1995-0004", "欧阳", "静", (1995, 1, 30), 3, "143250.25"),
    ("E-000005", "NIN-1988-0005", "Konaté", "Fanta", (1988, 5, 9), 3, "139990.99"),
    ("E-000006", "NIN-1971-0006", "Sow", "Ibrahima", (1971, 12, 1), 4, "705000.00"),
)


def main(settings, password):
    config.set_trytond("gov", config_file=settings)
    currency = Model.get("currency.currency")(name="CFA franc", code="XOF", digits=2, rounding=Decimal("0.01"))
    currency.save()
    ministry = Model.get("party.party")(name="Ministry of Finance")
    ministry.save()
    create_company(party=ministry, currency=currency)
    company = get_company()
    years = open_years(company)
    books(company, years)
    term = create_payment_term()
    term.save()
    for code, name in SUPPLIERS:
        party(code, name, supplier_payment_term=term)
    posts = establish()
    for employee in EMPLOYEES:
        employ(company, posts, *employee)
    service_user(company, password)


def open_years(company):
    years = []
    for number in YEARS:
        span = (dt.date(number, 1, 1), dt.date(number, 12, 31))
        year = set_fiscalyear_invoice_sequences(create_fiscalyear(company, span))
        year.save()
        year.click("create_period")
        # Numbers begin anew each year: what tells them apart is the year in front.
        for sequence in (year.post_move_sequence, year.invoice_sequences[0].in_invoice_sequence):
            sequence.prefix = f"{number}-"
            sequence.save()
        years.append(year)
    return years


def books(company, years):
    create_chart(company)
    made = get_accounts(company)
    payable = made["payable"]
    payable.code = "4010"
    payable.save()
    accounts = {}
    for code, name, like in ACCOUNTS:
        account = Model.get("account.account")(name=name, code=code, company=company, type=made[like].type)
        account.save()
        accounts[code] = account
    for year in years:
        budget = Model.get("account.budget")(name=f"State budget {year.name}", company=company, fiscalyear=year)
        budget.click("update_lines")
        for code, amount in BUDGETS.items():
            (line,) = Model.get("account.budget.line").find(
                [("budget", "=", budget.id), ("account", "=", accounts[code].id)]
            )
            line.amount = amount
            line.save()
    (cash,) = Model.get("account.journal").find([("code", "=", "CASH")])
    account = accounts["5120"]
    Model.get("account.invoice.payment.method")(
        name="Treasury single account", company=company, journal=cash, debit_account=account, credit_account=account
    ).save()


def party(code, name, **more):
    made = Model.get("party.party")(code=code, name=name, **more)
    made.save()
    return made


def establish():
    posts = {}
    for number, title, grade, ministry, department, established in POSTS:
        post = Model.get("personnel.post")(number=number, title=title, grade=grade, ministry=ministry)
        post.department, post.established = department, established
        post.save()
        posts[number] = post
    return posts


def employ(company, posts, number, national, family, given, born, post, salary):
    person = party(number, f"{given} {family}")
    person.identifiers.new(code=f"TIN-{number[2:]}")
    person.addresses[0].street = f"{int(number[2:])} Harbour Lane"
    person.addresses[0].city = "Port Sable"
    person.save()
    Model.get("company.employee")(
        party=person,
        company=company,
        start_date=dt.date(2020, 1, 1),
        national_id=national,
        family_name=family,
        given_names=given,
        birth_date=dt.date(*born),
        post=posts[post],
        salary=Decimal(salary),
        salary_account=f"XX99{int(number[2:]):016}",
        health_notes="none on file",
    ).save()


def service_user(company, password):
    user = Model.get("res.user")(name="Government Service Bus", login="gsb", password=password)
    for group in Model.get("res.group").find([("name", "in", GROUPS)]):
        user.groups.append(Model.get("res.group")(group.id))
    user.groups.append(drafts())
    user.companies.append(Model.get("company.company")(company.id))
    user.company = Model.get("company.company")(company.id)
    user.save()


def drafts():
    """The right to delete entries, which Tryton has for administrators only; posted ones it lets nobody delete."""
    group = Model.get("res.group")(name="Drafts of entries")
    group.save()
    for name in ("account.move", "account.move.line"):
        (model,) = Model.get("ir.model").find([("model", "=", name)])
        access = Model.get("ir.model.access")(model=model, group=group)
        access.perm_read = access.perm_write = access.perm_create = access.perm_delete = True
        access.save()
    return Model.get("res.group")(group.id)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).read_text("utf-8"))
