"""Invented names for the demonstration's personnel: several scripts, lengths and shapes.

Family and given names are combined by the generator, so the people do not exist. The list is here because
real personnel files hold apostrophes, hyphens, spaces, one-letter names and scripts other than Latin, and a bus
that only ever carried "John Smith" has not been tried.
"""

from __future__ import annotations

GIVEN: tuple[tuple[str, ...], ...] = (
    ("Awa", "Mamadou", "Fatou", "Ibrahima", "Aminata", "Ousmane", "Aïssatou", "Cheikh", "Ndèye", "Moussa"),
    ("Koffi", "Adjoua", "Kouamé", "Affoué", "Yao", "Amenan", "N'Dri", "Akissi", "Brou", "Ahou"),
    (
        "Chidi",
        "Ngozi",
        "Babatunde",
        "Folashadé",
        "Emeka",
        "Yétundé",
        "Oluwaseun",
        "Ifeoma",
        "Tunde",
        "Adaeze",
    ),
    ("فاطمة", "يوسف", "مريم", "عبد الرحمن", "خديجة", "إدريس", "زينب", "طارق", "سعاد", "حمزة"),
    ("ሰላም", "ዳዊት", "ሄለን", "ተስፋዬ", "ምሕረት", "ዮሐንስ", "አልማዝ", "ብርሃኑ", "ሀና", "ገብረ መድኅን"),
    ("Анна", "Дмитрий", "Гүлнара", "Нұрлан", "Светлана", "Ерлан", "Оксана", "Тимур", "Айгерім", "Юрий"),
    ("आशा", "विक्रम", "लक्ष्मी", "अर्जुन", "सरिता", "रवि", "मीना", "हरिश्चन्द्र", "गीता", "देव"),
    ("雅文", "志强", "静", "建国", "美玲", "海", "晓燕", "伟", "秀英", "子涵"),
    ("Nino", "Giorgi", "Tamar", "Luka", "Ana", "Davit", "Ketevan", "Irakli", "Salome", "Zurab"),
    ("María José", "João", "Inês", "Óscar", "Begoña", "Ângelo", "Lucía", "Íñigo", "Conceição", "Zé"),
)
FAMILY: tuple[tuple[str, ...], ...] = (
    ("Diallo", "Ndiaye", "Sow", "Bâ", "Traoré", "Coulibaly", "Keïta", "Sarr", "Guèye", "Cissé"),
    ("N'Guessan", "Kouassi", "Ehui", "Tanoh", "Aké", "Gnagne", "Konan", "Djédjé", "Bohoussou", "Kra"),
    (
        "Okonkwo",
        "Adéyẹmí",
        "Nwosu",
        "Ọláníyan",
        "Eze",
        "Bankole-Cole",
        "Uzodinma",
        "Ogunlẹ́yẹ",
        "Obi",
        "Afọlábí",
    ),
    ("بن علي", "الحداد", "العلوي", "منصور", "آل سعيد", "القاسمي", "بوزيد", "الطيب", "النجار", "حسن"),
    ("በቀለ", "ታደሰ", "ወልደ ሥላሴ", "መኮንን", "አበበ", "ግርማ", "ከበደ", "ተክለ ሃይማኖት", "ኃይሉ", "ለማ"),
    (
        "Иванченко",
        "Сейітқали",
        "Петренко",
        "Жұмабаев",
        "Ковальчук",
        "Абдрахманов",
        "Нұрпейісов",
        "Ли",
        "Ткач",
        "Оразбай",
    ),
    ("शर्मा", "तामाङ", "श्रेष्ठ", "पौडेल", "राई", "भट्टराई", "मगर", "विश्वकर्मा", "साह", "गुरुङ"),
    ("欧阳", "王", "司马", "李", "陈", "诸葛", "赵", "黄", "周", "上官"),
    (
        "Beridze",
        "Kapanadze",
        "Gelashvili",
        "Lomidze",
        "Tsiklauri",
        "Abashidze",
        "Japaridze",
        "Maisuradze",
        "Ru",
        "O",
    ),
    (
        "de la Peña y Martínez-Echegaray",
        "da Conceição dos Santos",
        "Ñúñez",
        "Sá",
        "Urrutikoetxea Mendizábal",
        "d'Ávila",
        "Fernandes-Cabral",
        "Ibáñez",
        "Gonçalves",
        "Li",
    ),
)
STREETS: tuple[str, ...] = (
    "Rue des Palmiers",
    "Independence Avenue",
    "Market Street",
    "شارع الاستقلال",
    "Boulevard de la République",
    "River Road",
    "Calle del Sol",
    "Harbour Lane",
    "ул. Мира",
    "Old Fort Road",
)
HEALTH: tuple[str, ...] = (
    "none on file",
    "fit for duty",
    "reduced duty after surgery",
    "asthma; no field work in the dry season",
    "medical board due",
)
MINISTRIES: tuple[tuple[str, str, int], ...] = (
    ("MOE", "Ministry of Education", 1500),
    ("MOH", "Ministry of Health", 1100),
    ("MOI", "Ministry of the Interior", 760),
    ("MOF", "Ministry of Finance", 420),
    ("MOA", "Ministry of Agriculture", 390),
    ("MOJ", "Ministry of Justice", 300),
    ("MOT", "Ministry of Transport", 220),
    ("MPS", "Ministry of Public Service", 130),
    ("MEN", "Ministry of Environment", 110),
    ("MFA", "Ministry of Foreign Affairs", 70),
)
"""Code, name and staff; 5,000 in all."""
DEPARTMENTS: tuple[str, ...] = (
    "Administration",
    "Finance",
    "Inspection",
    "Operations",
    "Planning",
    "Records",
)
POSTS: tuple[tuple[str, str], ...] = (
    ("Clerk", "C"),
    ("Driver", "C"),
    ("Technician", "B"),
    ("Officer", "B"),
    ("Senior Officer", "A"),
    ("Inspector", "A"),
    ("Head of Division", "S"),
)
"""Title and grade."""
GRADES: tuple[tuple[str, str, int], ...] = (
    ("C", "Support staff", 95_000),
    ("B", "Intermediate staff", 180_000),
    ("A", "Senior staff", 340_000),
    ("S", "Management", 620_000),
)
"""Code, name and the lowest monthly salary in XOF."""
