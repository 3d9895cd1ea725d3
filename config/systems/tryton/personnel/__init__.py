"""A module for Tryton: what this government keeps of an employee beyond what Tryton itself does.

Whoever uses Tryton for personnel adds such a module of their own. It runs inside Tryton's process and environment only;
the bus never imports it. It computes nothing, so a mistake in it shows when the database is built.
"""

from trytond.model import fields
from trytond.pool import Pool, PoolMeta


def register():
    """Called by Tryton when it loads the module."""
    Pool.register(Employee, module="personnel", type_="model")


class Employee(metaclass=PoolMeta):
    """The employee's party has code (personnel number), identifiers (taxpayer number) and addresses already."""

    __name__ = "company.employee"
    family_name = fields.Char("Family name")
    given_names = fields.Char("Given names")
    birth_date = fields.Date("Birth date")
    ministry = fields.Char("Ministry")
    department = fields.Char("Department")
    post = fields.Char("Post")
    grade = fields.Char("Grade")
    salary = fields.Numeric("Monthly salary", digits=(16, 2))
    salary_account = fields.Char("Account for the salary")
    health_notes = fields.Text("Notes of the medical service")
